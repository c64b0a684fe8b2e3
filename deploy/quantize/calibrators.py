"""Calibrators: choose the range of a tensor's INT8 grid from the distribution of its values.

The grid is symmetric: 127 steps from 0 to the range, and 127 below 0. Values beyond the range are clipped, so a
calibrator trades the clipping error of a few large values against the rounding error of all others.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps

import numpy as np

BINS = 2048
LEVELS = 127
"""Steps of the INT8 grid from 0 to the range."""
PERCENTILE = 99.99


@dataclass(frozen=True)
class Histogram:
    """Distribution of the magnitudes |x| of a tensor's values.

    Attributes:
        counts: int64 [BINS], values in equal bins from 0 to `max`, without those that are exactly 0.
        zeros: number of values that are exactly 0. Every symmetric grid represents 0, so they do not affect its choice;
            after a ReLU they are half of all values.
        max: the largest magnitude.
        images: number of images counted.
    """

    counts: np.ndarray
    zeros: int
    max: float
    images: int = 1

    @property
    def edges(self) -> np.ndarray:
        """float64 [BINS + 1], the borders of the bins."""
        return np.linspace(0.0, self.max, BINS + 1)


def count(magnitudes: np.ndarray, limit: float) -> np.ndarray:
    """Number of `magnitudes` (≥ 0) in each of the equal bins from 0 to `limit` > 0, int64 [BINS]."""
    bins = (magnitudes / np.float32(limit) * BINS).astype(np.int32)
    return np.bincount(np.minimum(bins, BINS - 1, out=bins).ravel(), minlength=BINS)


def min_max(histogram: Histogram) -> float:
    """Clip nothing: the largest magnitude."""
    return histogram.max


def percentile(histogram: Histogram) -> float:
    """Clip one value in ten thousand: the 99.99th percentile of the magnitudes, up to the width of a bin."""
    below = histogram.zeros + np.cumsum(histogram.counts)
    return float(np.interp(PERCENTILE / 100 * below[-1], [histogram.zeros, *below], histogram.edges))


def entropy(histogram: Histogram) -> float:
    """Lose the least information: the smallest Kullback–Leibler divergence of the clipped, 128-level distribution.

    The calibrator of TensorRT (S. Migacz, "8-bit inference with TensorRT", GTC 2017). For every number of bins i, P is
    the histogram's first i bins with all clipped counts added to the last; Q spreads the count of each of 128 equal
    groups of these bins evenly over the bins of the group that are not empty. Because Q is constant in each group,

        KL(P‖Q) = Σ_bins p log p − Σ_groups P(group) log q(group)

    has 128 terms in its second sum for each i.
    """
    counts, groups = histogram.counts, LEVELS + 1
    bins = np.arange(groups, BINS + 1)
    borders = -(-bins[:, None] * np.arange(groups + 1) // groups)  # bin b of i belongs to group ⌊128 b / i⌋
    total = _running_sum(counts)
    inside, clipped = total[bins], total[-1] - total[bins]
    mass = np.diff(total[borders])
    filled = np.diff(_running_sum(counts > 0)[borders])
    with np.errstate(divide="ignore", invalid="ignore"):
        log_q = np.log(mass / filled / inside[:, None])
        cross = np.where(mass > 0, mass * log_q, 0.0).sum(axis=1)
        # Clipped counts go to the last bin; where that is empty, Q is 0 and the divergence infinite.
        last = np.where(counts[bins - 1] > 0, log_q[:, -1], -np.inf)
        cross += np.where(clipped > 0, clipped * last, 0.0)
    own = _running_sum(_x_log_x(counts))[bins - 1] + _x_log_x(counts[bins - 1] + clipped)
    divergence = (own - cross) / total[-1] - np.log(total[-1])
    best = len(bins) - 1 - int(np.argmin(divergence[::-1]))  # the widest of equal ranges
    return float(histogram.edges[bins[best]])


def mse(histogram: Histogram, candidates: int = 512) -> float:
    """Smallest mean squared error of rounding and clipping among `candidates` ranges evenly spaced up to the maximum.

    The values of a bin are taken as evenly spread over it. With the step s and n = min(round(x / s), 127), the squared
    error (x − n s)² has the antiderivative F(x) = n s³ / 12 + (x − n s)³ / 3, so each bin's error is exact.
    """
    edges, counts = histogram.edges, histogram.counts.astype(np.float64)
    ranges = histogram.max * np.arange(1, candidates + 1) / candidates
    errors = np.empty(candidates)
    for index, step in enumerate(ranges / LEVELS):
        steps = edges / step
        level = np.minimum(np.rint(steps), LEVELS)
        off = steps - level
        cubed = off * off * off  # off**3 takes ten times as long
        errors[index] = step**3 * (counts @ np.diff(level / 12 + cubed / 3))
    return float(ranges[np.argmin(errors)])


def _above_zero(calibrator: Callable[[Histogram], float]) -> Callable[[Histogram], float]:
    """Return at least the width of a bin, and 1 for a tensor that was always 0, which any range represents."""

    @wraps(calibrator)
    def calibrate(histogram: Histogram) -> float:
        if not histogram.counts.any():
            return 1.0
        return max(calibrator(histogram), float(histogram.edges[1]))

    return calibrate


CALIBRATORS: dict[str, Callable[[Histogram], float]] = {
    "min-max": _above_zero(min_max),
    "percentile": _above_zero(percentile),
    "entropy": _above_zero(entropy),
    "mse": _above_zero(mse),
}
"""By name: each returns the range of a tensor's grid, above 0 and at most the largest magnitude."""


def _running_sum(values: np.ndarray) -> np.ndarray:
    """Sums of the first 0 … n values, [n + 1]."""
    return np.concatenate([[0], np.cumsum(values)])


def _x_log_x(counts: np.ndarray) -> np.ndarray:
    return counts * np.log(np.maximum(counts, 1))
