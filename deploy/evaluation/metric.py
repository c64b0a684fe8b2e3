"""The metric of a task: names, unit, and formatting of its scores."""

import msgspec


class Metric(msgspec.Struct, frozen=True):
    """Names and unit of a score.

    A higher score is always better, so the score of an error is its negative, like scikit-learn's
    `neg_root_mean_squared_error`; a negative `factor` shows it as positive.
    """

    name: str = "mIoU"
    """Name in tables and messages."""
    key: str = "miou"
    """Name in files; for an error such as "neg_rmse"."""
    unit: str = "%"
    factor: float = 100.0
    """Factor from a score to the value shown in `unit`."""
    relative: bool = False
    """Whether a drop is relative to the reference's score (for scores with a unit) or a difference (for fractions)."""

    @property
    def header(self) -> str:
        """The heading of a column."""
        return f"{self.name} {self.unit}"

    def text(self, score: float, decimals: int = 2) -> str:
        """Format a score, without its unit."""
        return f"{self.factor * score:.{decimals}f}"

    def change(self, difference: float, decimals: int = 3) -> str:
        """Format a difference of scores, with its sign."""
        return f"{self.factor * difference + 0.0:+.{decimals}f}"  # + 0.0: no negative zero

    def drop(self, reference: float, score: float) -> float:
        """How much lower `score` is than `reference`, in the unit of budgets: 0.01 is one point, or one percent."""
        lost = reference - score
        return lost / abs(reference) if self.relative and reference else lost

    def over(self, drop: float, limit: float) -> str:
        """Describe a `drop` that exceeds its `limit`."""
        amount, allowed = distinct(100 * drop, 100 * limit)
        unit = "%" if self.relative else "points"
        verb = "falls" if self.factor > 0 else "rises"
        return f"{self.name} {verb} by {amount} {unit}, more than the budget of {allowed}"


MIOU = Metric()


def distinct(value: float, limit: float) -> tuple[str, str]:
    """Format two different numbers with enough decimals to distinguish them, at least 2."""
    texts = "", ""
    for decimals in range(2, 18):
        texts = f"{value:.{decimals}f}", f"{limit:.{decimals}f}"
        if texts[0] != texts[1]:
            break
    return texts
