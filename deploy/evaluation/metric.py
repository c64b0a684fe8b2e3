"""The score of a task: what it is called, and how it is shown."""

import msgspec


class Metric(msgspec.Struct, frozen=True):
    """Names and unit of a score.

    A higher score is always better, so an error is scored as its negative, as scikit-learn's
    `neg_root_mean_squared_error` is, and shown by a negative `factor`.
    """

    name: str = "mIoU"
    """For people."""
    key: str = "miou"
    """For files: of an error, such as "neg_rmse"."""
    unit: str = "%"
    factor: float = 100.0
    """What a score is multiplied by to be shown in `unit`."""
    relative: bool = False
    """Losses are shares of the reference's score, for scores in a unit; otherwise differences, for fractions."""

    @property
    def header(self) -> str:
        """The heading of a column."""
        return f"{self.name} {self.unit}"

    def text(self, score: float, decimals: int = 2) -> str:
        """A score as it is shown, without its unit."""
        return f"{self.factor * score:.{decimals}f}"

    def change(self, difference: float, decimals: int = 3) -> str:
        """A difference of scores with its sign, as shown."""
        return f"{self.factor * difference:+.{decimals}f}"

    def drop(self, reference: float, score: float) -> float:
        """How much worse `score` is than `reference`, as budgets count it: 0.01 is a point, or one percent."""
        lost = reference - score
        return lost / abs(reference) if self.relative and reference else lost

    def over(self, drop: float, limit: float) -> str:
        """Words for a `drop` above its `limit`."""
        amount, allowed = distinct(100 * drop, 100 * limit)
        unit = "%" if self.relative else "points"
        verb = "falls" if self.factor > 0 else "rises"
        return f"{self.name} {verb} by {amount} {unit}, more than the budget of {allowed}"


MIOU = Metric()


def distinct(value: float, limit: float) -> tuple[str, str]:
    """Two different numbers with as many decimals as it takes to tell them apart, at least 2."""
    texts = "", ""
    for decimals in range(2, 18):
        texts = f"{value:.{decimals}f}", f"{limit:.{decimals}f}"
        if texts[0] != texts[1]:
            break
    return texts
