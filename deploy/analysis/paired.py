"""Compare two models on the same images: wins and losses, and confidence intervals of the difference.

Intervals are percentiles of a paired bootstrap (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993): images
are drawn with replacement, the same ones for both models.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from deploy.analysis.scores import counts_of, iou_of, present_mean, scores_of
from deploy.errors import UserError

RESAMPLES = 10_000
_CHUNK = 2**21
"""Draws in memory at a time."""


@dataclass(frozen=True)
class Interval:
    """A difference first − second, as a fraction, with its confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """The first model against the second, on the images with a valid pixel."""

    images: int
    wins: int
    """Images on which the first has the higher mIoU."""
    losses: int
    ties: int
    mean: Interval
    """Difference of the mIoU per image, averaged."""
    dataset: Interval
    """Difference of the mIoU over all images (summed confusion matrices)."""


def compare_images(
    first: np.ndarray,
    second: np.ndarray,
    *,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compare two models on the same images. Images without a valid pixel are left out.

    Args:
        first: confusion matrices of the first model, int64 N×K×(K+1).
        second: those of the second model, for the same images in the same order.
        resamples: draws of the bootstrap.
        confidence: of the intervals.
        seed: the same seed gives the same intervals.

    Raises:
        UserError: no image has a valid pixel.
        ValueError: the arrays have different shapes.
    """
    if first.shape != second.shape:
        raise ValueError(f"confusion matrices differ in shape: {first.shape} and {second.shape}")
    usable = first.any(axis=(1, 2)) & second.any(axis=(1, 2))
    if not usable.any():
        raise UserError("nothing to compare: no image has a valid pixel; check labels and ignore label")
    first, second = first[usable], second[usable]
    difference = scores_of(first).miou - scores_of(second).miou
    pooled = [np.concatenate(counts_of(one), axis=1).astype(np.float64) for one in (first, second)]

    means, totals = np.empty(resamples), np.empty(resamples)
    for rows, weights in _draws(len(difference), resamples, seed):
        means[rows] = weights @ difference / len(difference)
        totals[rows] = _miou(weights @ pooled[0]) - _miou(weights @ pooled[1])
    everything = [one.sum(axis=0) for one in pooled]
    return Comparison(
        images=len(difference),
        wins=int((difference > 0).sum()),
        losses=int((difference < 0).sum()),
        ties=int((difference == 0).sum()),
        mean=_interval(float(difference.mean()), means, confidence),
        dataset=_interval(float(_miou(everything[0]) - _miou(everything[1])), totals, confidence),
    )


def _draws(images: int, resamples: int, seed: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Chunks of resamples, and how often each image was drawn: float64 n×images, each row sums to `images`."""
    random = np.random.default_rng(seed)
    size = max(1, _CHUNK // images)
    for start in range(0, resamples, size):
        count = min(size, resamples - start)
        drawn = random.integers(0, images, (count, images)) + images * np.arange(count)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=count * images).reshape(count, images)
        yield slice(start, start + count), weights.astype(np.float64)


def _miou(pooled: np.ndarray) -> np.ndarray:
    """mIoU of counts …×3K: correct, labeled and predicted pixels of each class."""
    return present_mean(iou_of(*np.split(pooled, 3, axis=-1)))


def _interval(value: float, resampled: np.ndarray, confidence: float) -> Interval:
    outside = 50 * (1 - confidence)
    low, high = np.percentile(resampled, [outside, 100 - outside])
    return Interval(value, float(low), float(high))
