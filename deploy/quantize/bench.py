"""Make quantized models and measure them for the search to compare."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from deploy.evaluation.metric import Metric
from deploy.evaluation.receipt import Budget
from deploy.quantize.formats import INT8, Format
from deploy.quantize.options import Form, Precision
from deploy.quantize.qdq import cpu_form, insert
from deploy.quantize.report import Figures
from deploy.quantize.tensorrt_form import tensorrt_form


class Evaluate(Protocol):
    """A function that measures a model."""

    def __call__(self, model: bytes, form: Form | None, /) -> Figures:
        """Measure a model: the fp32 model, or one of the forms of an INT8 model."""
        ...


FORMS: Mapping[Precision, Mapping[Form, Callable[[bytes], bytes]]] = {
    "int8": {"cpu": cpu_form, "tensorrt": tensorrt_form},
    "fp8": {"tensorrt": tensorrt_form},
}
"""What makes each form of a precision from the result of `deploy.quantize.qdq.insert`."""


@dataclass(frozen=True)
class Attempt:
    """A quantized model in its forms, and their scores."""

    ranges: dict[str, float]
    models: dict[Form, bytes]
    float_layers: tuple[str, ...]
    scores: dict[Form, Figures]
    """In the order of measurement: of the form that will run and, if that meets the budget, of the other."""
    passed: bool

    @property
    def ranked(self) -> Figures:
        """Figures of the form that will run."""
        return next(iter(self.scores.values()))

    @property
    def figures(self) -> Figures:
        """The worse of all figures."""
        scores = self.scores.values()
        return Figures(min(one.score for one in scores), min(one.agreement for one in scores))

    @property
    def decisive(self) -> Form:
        """The form that is over the budget, or the one that will run if none is."""
        forms = list(self.scores)
        return forms[0] if self.passed else forms[-1]

    @property
    def rank(self) -> tuple[bool, float, float]:
        """Sort key: the best attempt has the largest.

        Differences of the score within the budget are noise, so the attempt that agrees most with fp32 ranks first.
        """
        by_score, by_agreement = self.ranked.score, self.ranked.agreement
        return (True, by_agreement, by_score) if self.passed else (False, by_score, by_agreement)


@dataclass(frozen=True)
class Bench:
    """Makes quantized models and measures them."""

    model: bytes
    evaluate: Evaluate
    budget: Budget
    fp32: Figures
    metric: Metric
    always_float: tuple[str, ...]
    """Layers that every attempt leaves in float."""
    form: Form = "cpu"
    """The form that will run."""
    format: Format = INT8

    def attempt(self, ranges: dict[str, float], float_layers: Sequence[str] = ()) -> Attempt:
        """Quantize and measure, with `float_layers` left in float."""
        in_float = (*self.always_float, *float_layers)
        rounded = insert(self.model, ranges, in_float, self.format)
        models: dict[Form, bytes] = {form: make(rounded) for form, make in FORMS[self.format.name].items()}
        scores: dict[Form, Figures] = {self.form: self.evaluate(models[self.form], self.form)}
        if passed := self.meets_budget(scores[self.form]):
            scores |= {
                form: self.evaluate(model, form) for form, model in models.items() if form != self.form
            }
            passed = all(map(self.meets_budget, scores.values()))
        return Attempt(ranges, models, in_float, scores, passed)

    def figures(self, ranges: dict[str, float], float_layers: Sequence[str], form: Form) -> Figures:
        """Figures of one form, with `float_layers` left in float."""
        rounded = insert(self.model, ranges, (*self.always_float, *float_layers), self.format)
        return self.evaluate(FORMS[self.format.name][form](rounded), form)

    def meets_budget(self, figures: Figures) -> bool:
        """Whether these figures are within the budget."""
        drop = self.metric.drop(self.fp32.score, figures.score)
        return drop <= self.budget.max_drop and figures.agreement >= self.budget.min_agreement

    def words(self, figures: Figures) -> str:
        """The figures as text, with the change of the score against fp32."""
        metric = self.metric
        score, change = metric.text(figures.score), metric.change(figures.score - self.fp32.score)
        return f"{metric.name} {score} {metric.unit} ({change}), agreement {100 * figures.agreement:.3f} %"

    def all_words(self, attempt: Attempt) -> str:
        """The figures of each form that was measured as text."""
        return "; ".join(f"{form}: {self.words(figures)}" for form, figures in attempt.scores.items())
