"""Quantized models made and measured: what the search compares."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deploy.evaluation.metric import Metric
from deploy.evaluation.receipt import Budget
from deploy.quantize.qdq import cpu_form, insert
from deploy.quantize.report import Figures

Evaluate = Callable[[bytes], Figures]


@dataclass(frozen=True)
class Attempt:
    """A quantized model and its figures."""

    ranges: dict[str, float]
    int8: bytes
    int8_cpu: bytes
    kept: tuple[str, ...]
    """Layers in float."""
    cpu_figures: Figures
    figures: Figures
    """Those in CPU form, or the worse of both forms if these met the budget."""
    passed: bool

    @property
    def rank(self) -> tuple[bool, float, float]:
        """What makes one better than another.

        Within the budget, differences of the score are luck, and what strays least from fp32 is best.
        """
        by_score, by_agreement = self.figures.score, self.figures.agreement
        return (True, by_agreement, by_score) if self.passed else (False, by_score, by_agreement)


@dataclass(frozen=True)
class Bench:
    """Makes quantized models and measures them."""

    model: bytes
    evaluate: Evaluate
    budget: Budget
    fp32: Figures
    metric: Metric
    always: tuple[str, ...]
    """Layers that are in float whatever an attempt keeps."""

    def attempt(self, ranges: dict[str, float], kept: Sequence[str] = ()) -> Attempt:
        """Quantize and measure, with the layers `kept` in float."""
        kept = (*self.always, *kept)
        int8 = insert(self.model, ranges, kept)
        int8_cpu = cpu_form(int8)
        figures = cpu_figures = self.evaluate(int8_cpu)
        if self.meets_budget(figures):
            signed = self.evaluate(int8)
            figures = Figures(min(figures.score, signed.score), min(figures.agreement, signed.agreement))
        return Attempt(ranges, int8, int8_cpu, kept, cpu_figures, figures, self.meets_budget(figures))

    def meets_budget(self, figures: Figures) -> bool:
        """Whether these figures are good enough."""
        drop = self.fp32.score - figures.score
        return drop <= self.budget.max_drop and figures.agreement >= self.budget.min_agreement

    def words(self, figures: Figures) -> str:
        """The figures, and what they cost against fp32."""
        metric = self.metric
        score, change = metric.text(figures.score), metric.change(figures.score - self.fp32.score)
        return f"{metric.name} {score} {metric.unit} ({change}), agreement {100 * figures.agreement:.3f} %"
