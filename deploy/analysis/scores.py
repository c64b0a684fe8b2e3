"""Scores of single images, and of sums of images, from their confusion matrices."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class ImageScores:
    """Scores of N images, float64 fractions in 0..1. NaN: the score is undefined (None in `Scores`)."""

    iou: np.ndarray
    """N×K; NaN where the class is in neither label nor prediction."""
    miou: np.ndarray
    """(N,): mean of `iou` over the classes in label or prediction; NaN without a valid pixel."""
    f1: np.ndarray
    """N×K: the Dice coefficient."""
    pixel_accuracy: np.ndarray
    """(N,)"""
    share: np.ndarray
    """N×K: share of valid pixels labeled as the class."""
    predicted: np.ndarray
    """N×K: share of valid pixels predicted as the class."""


def confusion(prediction: np.ndarray, label: np.ndarray, valid: np.ndarray, classes: int) -> np.ndarray:
    """Count a confusion matrix as in `deploy.evaluation.segmentation_metrics`.

    Args:
        prediction: class ids H×W; an id ≥ `classes` is "no class".
        label: class ids H×W, below `classes` where valid.
        valid: bool H×W: the pixels to count.
        classes: their number, K.

    Returns:
        int64 K×(K+1): a row for each label, a column for each prediction, the last for "no class".
    """
    guess, truth = prediction[valid].astype(np.int64), label[valid].astype(np.int64)
    pairs = truth * (classes + 1) + np.where(guess < classes, guess, classes)
    return np.bincount(pairs, minlength=classes * (classes + 1)).reshape(classes, classes + 1)


def counts_of(confusions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Correct, labeled and predicted pixels, each …×K, of confusion matrices …×K×(K+1)."""
    hits = np.diagonal(confusions, axis1=-2, axis2=-1)
    return hits, confusions.sum(axis=-1), confusions[..., :-1].sum(axis=-2)


def iou_of(hits: np.ndarray, labeled: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Intersection over union of counts of the same shape; NaN where the union is empty."""
    return _ratio(hits, labeled + predicted - hits)


def present_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis, ignoring NaN; NaN where all values are NaN. …×K → …"""
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0).sum(axis=-1), known.sum(axis=-1))


def scores_of(confusions: np.ndarray) -> ImageScores:
    """Scores of N confusion matrices, int64 N×K×(K+1), as in `deploy.evaluation.segmentation_metrics.Scores`."""
    hits, labeled, predicted = counts_of(confusions)
    pixels = labeled.sum(axis=-1)
    iou = iou_of(hits, labeled, predicted)
    return ImageScores(
        iou=iou,
        miou=present_mean(iou),
        f1=_ratio(2 * hits, labeled + predicted),
        pixel_accuracy=_ratio(hits.sum(axis=-1), pixels),
        share=_ratio(labeled, pixels[:, None]),
        predicted=_ratio(predicted, pixels[:, None]),
    )


def dataset_scores(confusions: np.ndarray) -> ImageScores:
    """Scores of the sum of all images, N = 1, which are reported for a data set."""
    return scores_of(confusions.sum(axis=0, keepdims=True))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    whole = np.broadcast_to(whole, part.shape)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
