"""Scores of single images, and of any sum of images, from their confusion matrices."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class ImageScores:
    """Scores of N images, float64 fractions in 0..1. NaN: the figure does not exist there (as None in `Scores`)."""

    iou: np.ndarray
    """N×K; NaN where the class is in neither label nor prediction."""
    miou: np.ndarray
    """(N,): the mean of `iou` over the classes that are there; NaN without a valid pixel."""
    f1: np.ndarray
    """N×K: the Dice coefficient."""
    pixel_accuracy: np.ndarray
    """(N,)"""
    share: np.ndarray
    """N×K: of the valid pixels those labeled as the class."""
    predicted: np.ndarray
    """N×K: of the valid pixels those predicted as the class."""


def confusion(prediction: np.ndarray, label: np.ndarray, valid: np.ndarray, classes: int) -> np.ndarray:
    """int64 K×(K+1) as in `deploy.evaluation.segmentation_metrics`: label rows, prediction columns, the last for "no class".

    `prediction` and `label` are ids H×W, of which labels must be classes where bool `valid` H×W.
    """
    guess, truth = prediction[valid].astype(np.int64), label[valid].astype(np.int64)
    pairs = truth * (classes + 1) + np.where(guess < classes, guess, classes)
    return np.bincount(pairs, minlength=classes * (classes + 1)).reshape(classes, classes + 1)


def counts_of(confusions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels that are right, labeled, and predicted, each …×K, of confusion matrices …×K×(K+1)."""
    hits = np.diagonal(confusions, axis1=-2, axis2=-1)
    return hits, confusions.sum(axis=-1), confusions[..., :-1].sum(axis=-2)


def iou_of(hits: np.ndarray, labeled: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Intersection over union of counts of any one shape; NaN where the union is empty."""
    return _ratio(hits, labeled + predicted - hits)


def present_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis without NaN; NaN where there is nothing else. …×K → …"""
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0).sum(axis=-1), known.sum(axis=-1))


def scores_of(confusions: np.ndarray) -> ImageScores:
    """Scores of each of N confusion matrices int64 N×K×(K+1); definitions are those of `deploy.evaluation.segmentation_metrics.Scores`."""
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
    """The same of the sum of all images, N = 1: the scores that a data set is reported with."""
    return scores_of(confusions.sum(axis=0, keepdims=True))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    whole = np.broadcast_to(whole, part.shape)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
