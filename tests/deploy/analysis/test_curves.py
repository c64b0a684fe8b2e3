"""Threshold sweeps compared with scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics

from deploy.analysis.curves import (
    EDGES,
    ProbabilityHistogram,
    at_threshold,
    average_precision,
    best_f1,
    roc_auc,
    sweep,
)
from deploy.errors import UserError

EVERYWHERE = np.ones((40, 50), bool)


def made_up(seed=0):
    """Probabilities float32 40×50 and a label that correlates with them."""
    random = np.random.default_rng(seed)
    truth = random.random((40, 50)) < 0.3
    scores = random.normal(np.where(truth, 0.8, -0.8), 1.5)
    return (1 / (1 + np.exp(-scores))).astype(np.float32), truth


def counted(probability, truth, valid=EVERYWHERE):
    histogram = ProbabilityHistogram()
    histogram.update(probability, truth, valid)
    return histogram


def at_resolution(probability):
    """Probabilities rounded down to the edges of their bins."""
    return EDGES[np.searchsorted(EDGES, probability.ravel(), side="right") - 1]


class TestParity:
    def test_precision_recall_curve(self):
        probability, truth = made_up()
        swept = sweep(counted(probability, truth))
        precision, recall, thresholds = metrics.precision_recall_curve(
            truth.ravel(), at_resolution(probability)
        )
        here = np.searchsorted(EDGES, thresholds)
        np.testing.assert_allclose(swept.precision[here], precision[:-1], rtol=1e-12)
        np.testing.assert_allclose(swept.recall[here], recall[:-1], rtol=1e-12)

    def test_roc_curve(self):
        probability, truth = made_up()
        swept = sweep(counted(probability, truth))
        rate, recall, thresholds = metrics.roc_curve(
            truth.ravel(), at_resolution(probability), drop_intermediate=False
        )
        here = np.searchsorted(EDGES, thresholds[1:])
        np.testing.assert_allclose(swept.false_positive_rate[here], rate[1:], rtol=1e-12)
        np.testing.assert_allclose(swept.recall[here], recall[1:], rtol=1e-12)

    def test_areas(self):
        probability, truth = made_up()
        swept, coarse = sweep(counted(probability, truth)), at_resolution(probability)
        assert roc_auc(swept) == pytest.approx(metrics.roc_auc_score(truth.ravel(), coarse), rel=1e-12)
        expected = metrics.average_precision_score(truth.ravel(), coarse)
        assert average_precision(swept) == pytest.approx(expected, rel=1e-12)
        assert roc_auc(swept) == pytest.approx(
            metrics.roc_auc_score(truth.ravel(), probability.ravel()), abs=1e-3
        )

    @pytest.mark.parametrize("index", [0, 1, 300, 500, 701, 1000])
    def test_figures_at_a_threshold(self, index):
        probability, truth = made_up()
        swept = sweep(counted(probability, truth))
        guess = probability.ravel() >= np.float32(index / 1000)
        f1 = metrics.f1_score(truth.ravel(), guess, zero_division=0)
        assert swept.f1[index] == pytest.approx(f1, rel=1e-12)
        assert swept.iou[index] == pytest.approx(metrics.jaccard_score(truth.ravel(), guess), rel=1e-12)
        assert at_threshold(swept, index / 1000).f1 == swept.f1[index]


def test_every_edge_counts_as_at_least_the_edge():
    swept = sweep(counted(EDGES, np.ones(1001, bool), np.ones(1001, bool)))
    np.testing.assert_array_equal(swept.true_positives, np.arange(1001, 0, -1))


def test_best_threshold_is_the_best_of_all():
    probability, truth = made_up()
    best = best_f1(sweep(counted(probability, truth)))
    every = [metrics.f1_score(truth.ravel(), probability.ravel() >= edge) for edge in EDGES[::50]]
    assert best.f1 >= max(every)
    guess = probability.ravel() >= np.float32(best.threshold)
    assert best.f1 == pytest.approx(metrics.f1_score(truth.ravel(), guess), rel=1e-12)
    assert best.precision == pytest.approx(metrics.precision_score(truth.ravel(), guess), rel=1e-12)


def test_of_equal_thresholds_the_middle_one_is_best():
    probability = np.array([0.1, 0.2, 0.9, 0.95], np.float32)
    best = best_f1(sweep(counted(probability, probability > 0.5, np.ones(4, bool))))
    assert (best.threshold, best.f1) == (0.5, 1.0)


def test_histograms_add_up():
    whole, parts = ProbabilityHistogram(), ProbabilityHistogram()
    for seed in range(3):
        whole.update(*made_up(seed), EVERYWHERE)
        parts.merge(counted(*made_up(seed)))
    np.testing.assert_array_equal(whole.positive, parts.positive)
    np.testing.assert_array_equal(whole.negative, parts.negative)
    assert whole.positive.sum() + whole.negative.sum() == 3 * 2000


def test_only_valid_pixels_count():
    probability, truth = made_up()
    valid = np.zeros((40, 50), bool)
    valid[5:7] = True
    histogram = counted(probability, truth, valid)
    assert histogram.positive.sum() == truth[5:7].sum()
    assert histogram.negative.sum() == 100 - truth[5:7].sum()


class TestDegenerate:
    def test_no_positives(self):
        swept = sweep(counted(made_up()[0], np.zeros((40, 50), bool)))
        assert (average_precision(swept), roc_auc(swept)) == (None, None)
        assert swept.f1.max() == swept.recall.max() == 0

    def test_nothing_but_positives(self):
        swept = sweep(counted(made_up()[0], EVERYWHERE))
        assert average_precision(swept) == 1
        assert roc_auc(swept) is None
        assert best_f1(swept).f1 == 1

    def test_no_valid_pixel(self):
        swept = sweep(counted(*made_up(), ~EVERYWHERE))
        assert np.isfinite([swept.precision, swept.recall, swept.f1, swept.iou]).all()

    def test_nan_is_refused(self):
        with pytest.raises(UserError, match="NaN"):
            counted(np.full((40, 50), np.nan, np.float32), EVERYWHERE)
