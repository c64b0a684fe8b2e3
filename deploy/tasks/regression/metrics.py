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
_BITS, _LIMBS, _POINT = 30, 13, 90
"""Squared errors are counted in units of 2⁻⁹⁰, as limbs of 30 bits: sums over 2³³ images fit into int64, and the limbs
hold what the largest float32 maps can differ by."""
_LARGEST = float(np.finfo(np.float32).max)
_REMEDY = {
    "predicted": "check the network and its input",
    "true": "such pixels must be invalid: NaN in the map's file",
}


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
        self.counts = np.zeros(3 + _LIMBS, np.int64)
        """Valid pixels, pixels with positive truth, those of them within the ratio, and the limbs of the summed squared
        error, the lowest first."""

    def update(self, values: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> None:
        """Count an image.

        Args:
            values: predicted map H×W.
            truth: true map H×W, with any value at invalid pixels.
            valid: bool H×W.

        Raises:
            UserError: the shapes differ, or a value at a valid pixel is not a finite float32.
        """
        if not values.shape == truth.shape == valid.shape:
            shapes = ", ".join("×".join(map(str, array.shape)) for array in (values, truth, valid))
            raise UserError(
                f"the predicted map, its truth and its valid pixels have shapes {shapes}; give equal ones"
            )
        predicted, expected = values[valid].astype(np.float64), truth[valid].astype(np.float64)
        for name, pixels in (("predicted", predicted), ("true", expected)):
            if not (np.abs(pixels) <= _LARGEST).all():
                raise UserError(f"the {name} map is not finite at a valid pixel; {_REMEDY[name]}")
        squared = float(np.square(predicted - expected).sum())
        positive = expected > 0
        p, t = predicted[positive], expected[positive]
        within = (p > 0) & (p < RATIO * t) & (t < RATIO * p)
        counts = (len(predicted), int(positive.sum()), int(within.sum()), *_limbs(squared))
        self.counts += np.array(counts, np.int64)

    def scores(self) -> RegressionScores:
        """The scores of all counted images.

        Raises:
            UserError: no image has a valid pixel.
        """
        pixels, positive, within, *limbs = self.counts.tolist()
        if not pixels:
            raise UserError("nothing to score: no image has a valid pixel; check the maps")
        squared = sum(limb << _BITS * index for index, limb in enumerate(limbs))  # exact: Python's integers
        rmse = math.sqrt(squared / (pixels << _POINT))
        return RegressionScores(rmse, within / positive if positive else None)


class RegressionScorer:
    """Scores by the negative RMSE: higher is better."""

    def __init__(self, _: Any = ()) -> None:
        self.metrics = RegressionMetrics()

    def update(self, result: Any, truth: np.ndarray, valid: np.ndarray) -> None:
        """Compare the `values` of a result with the true map H×W where both have data, and count them."""
        # `update` refuses other shapes
        known = valid & result.valid if valid.shape == result.valid.shape else valid
        self.metrics.update(result.values, truth, known)

    def counts(self) -> list[np.ndarray]:
        """The counts of pixels and squared errors."""
        return [self.metrics.counts]

    def score(self) -> float:
        """−RMSE."""
        return -self.metrics.scores().rmse

    def details(self) -> dict[str, float | None]:
        """Threshold accuracy."""
        return {f"δ<{RATIO:g}": self.metrics.scores().within}


def _limbs(value: float) -> list[int]:
    """Split a number ≥ 0 into `_LIMBS` limbs, the lowest first."""
    units = round(math.ldexp(value, _POINT))
    return [units >> _BITS * index & (1 << _BITS) - 1 for index in range(_LIMBS)]
