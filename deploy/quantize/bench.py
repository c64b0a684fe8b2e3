"""Make quantized models and measure them for the search to compare."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deploy.evaluation.metric import Metric
from deploy.evaluation.receipt import Budget
from deploy.quantize.qdq import cpu_form, insert
from deploy.quantize.report import Figures

Evaluate = Callable[[bytes], Figures]


@dataclass(frozen=True)
class Attempt:
    """A quantized model and its scores."""

    ranges: dict[str, float]
    int8: bytes
    int8_cpu: bytes
    float_layers: tuple[str, ...]
    cpu_figures: Figures
    figures: Figures
    """Those of the CPU form, or the worse of both forms if the CPU form meets the budget."""
    passed: bool

    @property
    def rank(self) -> tuple[bool, float, float]:
        """Sort key: the best attempt has the largest.

        Differences of the score within the budget are noise, so the attempt that agrees most with fp32 ranks first.
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
    always_float: tuple[str, ...]
    """Layers that every attempt leaves in float."""

    def attempt(self, ranges: dict[str, float], float_layers: Sequence[str] = ()) -> Attempt:
        """Quantize and measure, with `float_layers` left in float."""
        in_float = (*self.always_float, *float_layers)
        int8 = insert(self.model, ranges, in_float)
        int8_cpu = cpu_form(int8)
        figures = cpu_figures = self.evaluate(int8_cpu)
        if self.meets_budget(figures):
            signed = self.evaluate(int8)
            figures = Figures(min(figures.score, signed.score), min(figures.agreement, signed.agreement))
        return Attempt(ranges, int8, int8_cpu, in_float, cpu_figures, figures, self.meets_budget(figures))

    def meets_budget(self, figures: Figures) -> bool:
        """Whether these figures are within the budget."""
        drop = self.metric.drop(self.fp32.score, figures.score)
        return drop <= self.budget.max_drop and figures.agreement >= self.budget.min_agreement

    def words(self, figures: Figures) -> str:
        """The figures as text, with the change of the score against fp32."""
        metric = self.metric
        score, change = metric.text(figures.score), metric.change(figures.score - self.fp32.score)
        return f"{metric.name} {score} {metric.unit} ({change}), agreement {100 * figures.agreement:.3f} %"
