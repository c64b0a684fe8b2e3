"""RMSE and threshold accuracy of predicted maps (Eigen et al., NeurIPS 2014, arXiv:1406.2283).

Scores are computed from integer counts, so they do not depend on the order or the grouping of images.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from deploy.errors import UserError

RATIO = 1.25
"""The threshold accuracy δ counts pixels whose prediction and truth differ by a smaller factor."""
_BITS = 30
"""Bits of each of the two limbs of a fraction; sums over 2³³ images fit into int64."""


@dataclass(frozen=True)
class RegressionScores:
    """Scores over all valid pixels."""

    rmse: float
    """Root of the mean squared error, in the unit of the maps."""
    within: float | None
    """Fraction of the pixels with positive truth whose max(p/t, t/p) is below `RATIO`; None if there are none."""


class RegressionMetrics:
    """Counts pixels and squared errors, image by image; `scores()` computes scores from the counts."""

    def __init__(self) -> None:
        self.counts = np.zeros(6, np.int64)
        """Valid pixels, the integer part and two limbs of the fraction of the summed squared error, pixels with
        positive truth, and those of them within the ratio."""

    def update(self, values: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> None:
        """Count an image.

        Args:
            values: predicted map H×W.
            truth: true map H×W, with any value at invalid pixels.
            valid: bool H×W.

        Raises:
            UserError: the shapes differ, or a value is not finite at a valid pixel.
        """
        if not values.shape == truth.shape == valid.shape:
            shapes = " and ".join("×".join(map(str, array.shape)) for array in (values, truth))
            raise UserError(f"the predicted map and its truth have shapes {shapes}; they must be equal")
        predicted, expected = values[valid].astype(np.float64), truth[valid].astype(np.float64)
        squared = float(np.square(predicted - expected).sum())
        if not math.isfinite(squared):
            raise UserError("the predicted map or its truth is not finite at a valid pixel")
        positive = expected > 0
        p, t = predicted[positive], expected[positive]
        within = (p > 0) & (p < RATIO * t) & (t < RATIO * p)
        counts = (len(predicted), *_limbs(squared), int(positive.sum()), int(within.sum()))
        self.counts += np.array(counts, np.int64)

    def scores(self) -> RegressionScores:
        """The scores of all counted images.

        Raises:
            UserError: no image has a valid pixel.
        """
        pixels, whole, upper, lower, positive, within = self.counts.tolist()
        if not pixels:
            raise UserError("nothing to score: no image has a valid pixel; check the maps")
        squared = whole + math.ldexp(upper, -_BITS) + math.ldexp(lower, -2 * _BITS)
        return RegressionScores(math.sqrt(squared / pixels), within / positive if positive else None)


class RegressionScorer:
    """Scores by the negative RMSE: higher is better."""

    def __init__(self, _: Any = ()) -> None:
        self.metrics = RegressionMetrics()

    def update(self, result: Any, truth: np.ndarray, valid: np.ndarray) -> None:
        """Compare the `values` of a result with the true map H×W where both have data, and count them."""
        self.metrics.update(result.values, truth, valid & result.valid)

    def counts(self) -> list[np.ndarray]:
        """The counts of pixels and squared errors."""
        return [self.metrics.counts]

    def score(self) -> float:
        """−RMSE."""
        return -self.metrics.scores().rmse

    def details(self) -> dict[str, float | None]:
        """Threshold accuracy."""
        return {f"δ<{RATIO:g}": self.metrics.scores().within}


def _limbs(value: float) -> tuple[int, int, int]:
    """Split a number ≥ 0 into its integer part and its fraction in units of 2⁻³⁰ and 2⁻⁶⁰."""
    fraction, whole = math.modf(value)
    rest, upper = math.modf(math.ldexp(fraction, _BITS))
    return int(whole), int(upper), round(math.ldexp(rest, _BITS))
