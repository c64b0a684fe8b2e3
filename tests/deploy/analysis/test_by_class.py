"""Scores of classes are those of scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import jaccard_score, precision_recall_fscore_support

from deploy.analysis.by_class import NO_CLASS, class_scores
from deploy.analysis.scores import confusion


def test_parity_with_scikit_learn():
    rng = np.random.default_rng(0)
    label, prediction = rng.integers(0, 4, (2, 40, 30))
    rows = class_scores(list("abcd"), confusion(prediction, label, np.ones((40, 30), bool), 4))
    precision, recall, f1, support = precision_recall_fscore_support(label.ravel(), prediction.ravel())
    iou = jaccard_score(label.ravel(), prediction.ravel(), average=None)
    for index, row in enumerate(rows):
        figures = (precision[index], recall[index], f1[index], iou[index], support[index] / label.size)
        assert (row.precision, row.recall, row.f1, row.iou, row.share) == pytest.approx(figures)


def test_what_a_class_is_taken_for():
    counts = np.array([[5, 1, 3, 0], [0, 4, 0, 0], [0, 0, 0, 2]])
    rows = class_scores(["sky", "road", "sign"], counts)
    assert [row.taken_for for row in rows] == ["sign", "", NO_CLASS]


def test_undefined_scores_are_nan():
    [present, absent] = class_scores(["sky", "road"], np.array([[5, 0, 0], [0, 0, 0]]))
    assert present.recall == 1.0
    assert np.isnan([absent.iou, absent.f1, absent.precision, absent.recall]).all()
    assert absent.share == 0.0
