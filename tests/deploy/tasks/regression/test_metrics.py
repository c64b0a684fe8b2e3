"""RMSE and threshold accuracy against scikit-learn and by hand; sums that do not depend on order or processes."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import root_mean_squared_error

from deploy.errors import UserError
from deploy.tasks.regression.metrics import RegressionMetrics, RegressionScorer


def random_maps(seed=0, count=5, scale=1.0):
    rng = np.random.default_rng(seed)
    truth = scale * rng.uniform(0.2, 3.0, (count, 9, 7))
    return (truth + scale * rng.normal(0, 0.3, truth.shape)).astype(np.float32), truth.astype(np.float32)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_rmse_is_scikit_learns(scale):
    predicted, truth = random_maps(scale=scale)
    valid = np.random.default_rng(1).random(truth.shape) < 0.7
    metrics = RegressionMetrics()
    for one in zip(predicted, truth, valid, strict=True):
        metrics.update(*one)
    expected = root_mean_squared_error(truth[valid].astype(float), predicted[valid].astype(float))
    assert metrics.scores().rmse == pytest.approx(expected, rel=1e-9)


def test_threshold_accuracy_by_hand():
    truth = np.array([[1.0, 1.0, 1.0, 1.0, 0.0, -1.0]])
    predicted = np.array([[1.24, 1.26, 0.81, 0.79, 5.0, -1.0]])
    metrics = RegressionMetrics()
    metrics.update(predicted, truth, np.ones(truth.shape, bool))
    assert metrics.scores().within == 0.5  # of the four whose truth is positive


def test_order_and_processes_change_nothing():
    predicted, truth = random_maps(3, count=8)
    valid = np.ones(truth.shape[1:], bool)
    together, first, second = RegressionMetrics(), RegressionMetrics(), RegressionMetrics()
    for p, t in zip(predicted, truth, strict=True):
        together.update(p, t, valid)
    for index in np.random.default_rng(0).permutation(8):
        (first if index % 2 else second).update(predicted[index], truth[index], valid)
    first.counts += second.counts
    assert first.scores() == together.scores()


def test_perfect_and_empty():
    metrics = RegressionMetrics()
    with pytest.raises(UserError, match="no image has a valid pixel"):
        metrics.scores()
    metrics.update(np.zeros((2, 2)), np.zeros((2, 2)), np.ones((2, 2), bool))
    assert (metrics.scores().rmse, metrics.scores().within) == (0.0, None)


@pytest.mark.parametrize("error", [1e-10, 1.4e6, 3e38])
def test_errors_of_any_size_are_summed_without_overflow(error):
    metrics = RegressionMetrics()
    predicted, valid = np.full((1000, 1000), error, np.float32), np.ones((1000, 1000), bool)
    for _ in range(10):
        metrics.update(predicted, np.zeros_like(predicted), valid)
    assert metrics.scores().rmse == pytest.approx(float(np.float32(error)), rel=1e-12)


@pytest.mark.parametrize(
    ("predicted", "truth", "message"),
    [
        (np.zeros((2, 3)), np.zeros((2, 2)), "shapes 2×3, 2×2, 2×2"),
        (np.full((2, 2), np.nan), np.zeros((2, 2)), "the predicted map is not finite .*check the network"),
        (np.zeros((2, 2)), np.full((2, 2), np.inf), "the true map is not finite .*must be invalid"),
        (np.zeros((2, 2)), np.full((2, 2), 1e200), "the true map is not finite"),
    ],
)
def test_what_cannot_be_scored_is_refused(predicted, truth, message):
    with pytest.raises(UserError, match=message):
        RegressionMetrics().update(predicted, truth, np.ones((2, 2), bool))


def test_pixels_without_data_are_not_scored():
    result = SimpleNamespace(values=np.array([[1.0, np.nan]], np.float32), valid=np.array([[True, False]]))
    scorer = RegressionScorer()
    scorer.update(result, np.array([[3.0, 3.0]]), np.array([[True, True]]))
    assert scorer.score() == -2.0


def test_a_truth_of_another_size_is_refused():
    result = SimpleNamespace(values=np.zeros((2, 2)), valid=np.ones((2, 2), bool))
    with pytest.raises(UserError, match="shapes 2×2, 3×3, 3×3"):
        RegressionScorer().update(result, np.zeros((3, 3)), np.ones((3, 3), bool))
