"""Scores of each class, from a confusion matrix."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from deploy.analysis.scores import dataset_scores

NO_CLASS = "no class"
"""Name of the last column of a confusion matrix."""


class ClassScores(NamedTuple):
    """Scores of one class, fractions in 0..1; NaN where undefined."""

    name: str
    iou: float
    f1: float
    precision: float
    recall: float
    share: float
    """Share of the labeled pixels."""
    taken_for: str
    """The class that its missed pixels are mostly predicted as; "" if none is missed."""


def class_scores(names: Sequence[str], confusion: np.ndarray) -> list[ClassScores]:
    """The scores of each class.

    Args:
        names: of the K classes.
        confusion: int64 K×(K+1): a row for each label, a column for each prediction, the last for "no class".
    """
    scores = dataset_scores(confusion[None])
    hits, labeled, predicted = np.diagonal(confusion), confusion.sum(axis=1), confusion[:, :-1].sum(axis=0)
    rows = []
    for index, name in enumerate(names):
        missed = confusion[index].copy()
        missed[index] = 0
        rows.append(
            ClassScores(
                name,
                float(scores.iou[0, index]),
                float(scores.f1[0, index]),
                float(hits[index] / predicted[index]) if predicted[index] else np.nan,
                float(hits[index] / labeled[index]) if labeled[index] else np.nan,
                float(scores.share[0, index]),
                [*names, NO_CLASS][int(missed.argmax())] if missed.any() else "",
            )
        )
    return rows
