"""Calibration error compared with a plain loop, and temperatures whose value is known."""

import numpy as np
import pytest
from sklearn.metrics import log_loss

from deploy.analysis.calibration import (
    HIGHEST,
    LOWEST,
    LogitSample,
    Reliability,
    fit_temperature,
    nll,
    rescaled,
)
from deploy.errors import UserError
from deploy.scores.upsampling import softmax


def made_up(classes=3, count=20_000, seed=0):
    """Logits float32 n×K, and labels drawn from exactly their softmax."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (count, classes)).astype(np.float32)
    probabilities = softmax(logits.T.astype(np.float64)).T
    labels = (probabilities.cumsum(axis=1) < random.random((count, 1))).sum(axis=1).clip(0, classes - 1)
    return logits, labels


def as_image(logits, labels):
    """The same as probabilities K×100×… and labels 100×…"""
    classes = logits.shape[1]
    return softmax(logits.T.copy()).reshape(classes, 100, -1), labels.reshape(100, -1)


def ece_by_loop(probabilities, labels, bins=15):
    rows = [(row.max(), row.argmax() == label) for row, label in zip(probabilities, labels, strict=True)]
    error = 0.0
    for index in range(bins):
        inside = [row for row in rows if index / bins < row[0] <= (index + 1) / bins]
        if inside:
            confidence, right = np.mean([row[0] for row in inside]), np.mean([row[1] for row in inside])
            error += len(inside) / len(rows) * abs(right - confidence)
    return error


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_ece_is_that_of_a_loop(classes):
    logits, labels = made_up(classes, 2000)
    probabilities, label = as_image(2 * logits, labels)
    reliability = Reliability()
    reliability.update(probabilities, label, np.ones(label.shape, bool))
    expected = ece_by_loop(probabilities.reshape(classes, -1).T, labels)
    assert reliability.ece() == pytest.approx(expected, abs=1e-6)
    assert reliability.ece() > 0.02


def test_what_is_drawn_from_probabilities_is_calibrated():
    reliability = Reliability()
    logits, labels = made_up(count=100_000)
    reliability.add(softmax(logits.T.copy()).T, labels)
    assert reliability.ece() < 0.01


def test_reliability_adds_up_exactly_in_any_order():
    whole, parts = Reliability(), Reliability()
    shards = [as_image(*made_up(seed=seed)) for seed in range(3)]
    for probabilities, label in shards:
        whole.update(probabilities, label, label >= 0)
    for probabilities, label in reversed(shards):
        part = Reliability()
        part.update(probabilities, label, label >= 0)
        parts.merge(part)
    assert whole.ece() == parts.ece()
    for name in ("count", "correct", "confidence"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))
    with pytest.raises(ValueError, match="bins"):
        whole.merge(Reliability(10))


def test_without_pixels_there_is_no_error():
    reliability = Reliability()
    probabilities, label = as_image(*made_up(count=200))
    reliability.update(probabilities, label, np.zeros(label.shape, bool))
    assert reliability.ece() is None
    assert np.isnan(reliability.curve()).all()


@pytest.mark.parametrize("truth", [0.3, 1.0, 2.5, 7.0])
@pytest.mark.parametrize("classes", [2, 4])
def test_a_known_temperature_is_found(truth, classes):
    logits, labels = made_up(classes)
    assert fit_temperature(truth * logits, labels) == pytest.approx(truth, rel=0.05)


def test_the_temperature_is_the_best_of_a_fine_grid():
    logits, labels = made_up()
    best = fit_temperature(3 * logits, labels)
    around = best * np.linspace(0.9, 1.1, 41)
    costs = [nll(3 * logits, labels, one) for one in around]
    assert around[int(np.argmin(costs))] == pytest.approx(best, rel=0.005)


def test_nll_is_log_loss():
    logits, labels = made_up(count=500)
    expected = log_loss(labels, softmax(logits.T.astype(np.float64) / 2).T)
    assert nll(logits, labels, 2) == pytest.approx(expected, rel=1e-6)


def test_temperatures_end_at_the_range():
    logits, _ = made_up(count=500)
    assert fit_temperature(logits, logits.argmax(axis=1)) == LOWEST
    assert fit_temperature(logits, logits.argmin(axis=1)) == HIGHEST
    with pytest.raises(UserError, match="no valid pixel"):
        fit_temperature(logits[:0], np.empty(0, int))


def test_rescaling_is_softmax_of_divided_scores():
    logits, _ = made_up(count=500)
    np.testing.assert_allclose(
        rescaled(softmax(logits.T.copy()), 2.5), softmax(logits.T / np.float32(2.5)), atol=1e-6
    )


class TestSample:
    def test_gives_back_scores_up_to_a_constant(self):
        logits, labels = made_up(count=1000)
        sample = LogitSample(3)
        probabilities, label = as_image(logits, labels)
        sample.update(probabilities, label, label >= 0)
        assert nll(sample.logits, sample.labels) == pytest.approx(nll(logits, labels), rel=1e-5)

    def test_is_uniform_over_updates(self):
        sample = LogitSample(2, capacity=1000)
        for image in range(10):
            sample.update(
                np.full((2, 40, 50), 0.5, np.float32), np.full((40, 50), image), np.ones((40, 50), bool)
            )
        counts = np.bincount(sample.labels, minlength=10)
        assert counts.sum() == 1000
        assert (np.abs(counts - 100) < 50).all()  # five standard deviations

    def test_merges_to_a_uniform_sample(self):
        samples = [LogitSample(2, capacity=1000, seed=seed) for seed in range(2)]
        for image, (sample, size) in enumerate(zip(samples, (3000, 9000), strict=True)):
            half = np.full((2, 1, size), 0.5, np.float32)
            sample.update(half, np.full((1, size), image), np.ones((1, size), bool))
        samples[0].merge(samples[1])
        assert len(samples[0].labels) == 1000
        assert samples[0].labels.mean() == pytest.approx(0.75, abs=0.07)

    def test_depends_on_the_seed_alone(self):
        probabilities, label = as_image(*made_up())
        picked = []
        for seed in (1, 1, 2):
            sample = LogitSample(3, capacity=100, seed=seed)
            sample.update(probabilities, label, label >= 0)
            picked.append(sample.logits)
        np.testing.assert_array_equal(picked[0], picked[1])
        assert not np.array_equal(picked[0], picked[2])

    def test_holds_valid_pixels_alone(self):
        sample = LogitSample(3)
        probabilities, label = as_image(*made_up())
        sample.update(probabilities, label, label == 2)
        assert set(sample.labels) == {2}
