"""One class against the rest, at every threshold: histograms of probabilities, and the curves from them."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from deploy.errors import UserError

STEPS = 1000
EDGES = (np.arange(STEPS + 1) / STEPS).astype(np.float32)
"""Thresholds 0, 0.001, …, 1 in the dtype of probabilities, so that bins match `probability >= threshold` exactly."""


@dataclass(eq=False)
class ProbabilityHistogram:
    """Counts of pixels by their probability of one class: exact integers, which can be added up in any order.

    Bin i counts probabilities p with EDGES[i] <= p < EDGES[i + 1], the last p = 1.
    """

    positive: np.ndarray = field(default_factory=lambda: np.zeros(STEPS + 1, np.int64))
    """int64 (1001,): pixels of the class."""
    negative: np.ndarray = field(default_factory=lambda: np.zeros(STEPS + 1, np.int64))
    """int64 (1001,): all others."""

    def update(self, probability: np.ndarray, is_class: np.ndarray, valid: np.ndarray) -> None:
        """Count valid pixels.

        Args:
            probability: float32 in 0..1.
            is_class: bool, of the same shape: whether the label is the class.
            valid: bool, of the same shape: the pixels to count.

        Raises:
            UserError: a probability is NaN.
        """
        probability, is_class = probability[valid], is_class[valid]
        if np.isnan(probability).any():
            raise UserError("the model outputs probabilities that are NaN; check its weights and the image")
        bins = np.searchsorted(EDGES, probability, side="right") - 1
        self.positive += np.bincount(bins[is_class], minlength=STEPS + 1)
        self.negative += np.bincount(bins[~is_class], minlength=STEPS + 1)

    def merge(self, other: "ProbabilityHistogram") -> None:
        """Add the counts of another histogram, for example of another shard."""
        self.positive += other.positive
        self.negative += other.negative


@dataclass(frozen=True, eq=False)
class Sweep:
    """Metrics at each threshold, float64 (1001,), fractions in 0..1.

    A pixel is predicted as the class if its probability is at least the threshold. Definitions are those of
    `deploy.evaluation.segmentation_metrics`: a metric is 0 where its denominator is 0; but precision is 1 where nothing
    is predicted, by the convention of precision-recall curves.
    """

    thresholds: np.ndarray
    true_positives: np.ndarray
    """int64 (1001,), as are the next two."""
    false_positives: np.ndarray
    false_negatives: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    false_positive_rate: np.ndarray
    f1: np.ndarray
    iou: np.ndarray


class Best(NamedTuple):
    """A threshold and the metrics at it."""

    threshold: float
    f1: float
    precision: float
    recall: float
    iou: float


def sweep(histogram: ProbabilityHistogram) -> Sweep:
    """Compute the metrics at every threshold. The cost does not depend on the number of pixels."""
    true, false = _from_above(histogram.positive), _from_above(histogram.negative)
    positives, negatives = int(histogram.positive.sum()), int(histogram.negative.sum())
    missed, predicted = positives - true, true + false
    return Sweep(
        thresholds=EDGES.astype(np.float64),
        true_positives=true,
        false_positives=false,
        false_negatives=missed,
        precision=np.where(predicted > 0, true / np.maximum(predicted, 1), 1.0),
        recall=true / max(positives, 1),
        false_positive_rate=false / max(negatives, 1),
        f1=2 * true / np.maximum(2 * true + false + missed, 1),
        iou=true / np.maximum(true + false + missed, 1),
    )


def best_f1(swept: Sweep) -> Best:
    """The threshold of the highest F1; among equals the one nearest to ½, with the largest margins on both sides."""
    top = np.flatnonzero(swept.f1 == swept.f1.max())
    index = int(top[np.argmin(np.abs(swept.thresholds[top] - 0.5))])
    figures = (swept.thresholds, swept.f1, swept.precision, swept.recall, swept.iou)
    return Best(*(float(figure[index]) for figure in figures))


def at_threshold(swept: Sweep, threshold: float) -> Best:
    """Metrics at the highest threshold of the sweep that is not above the given one."""
    index = int(np.searchsorted(EDGES, np.float32(threshold), side="right")) - 1
    figures = (swept.thresholds, swept.f1, swept.precision, swept.recall, swept.iou)
    return Best(*(float(figure[index]) for figure in figures))


def average_precision(swept: Sweep) -> float | None:
    """Area under the precision-recall curve by steps, Σ (Rₙ − Rₙ₋₁) Pₙ, as in scikit-learn; None without positives."""
    if swept.true_positives[0] == 0:
        return None
    recall = np.append(swept.recall, 0.0)
    return float(((recall[:-1] - recall[1:]) * swept.precision).sum())


def roc_auc(swept: Sweep) -> float | None:
    """Area under the ROC curve by trapezoids: the chance that a pixel of the class has a larger probability
    than one of another class.

    Pixels in the same bin are ties and count one half. None if there are no pixels of the class, or no others.
    """
    if swept.true_positives[0] == 0 or swept.false_positives[0] == 0:
        return None
    recall, rate = np.append(swept.recall, 0.0), np.append(swept.false_positive_rate, 0.0)
    return float(((rate[:-1] - rate[1:]) * (recall[:-1] + recall[1:]) / 2).sum())


def _from_above(counts: np.ndarray) -> np.ndarray:
    """For each bin the sum of its count and all above."""
    return counts[::-1].cumsum()[::-1]
