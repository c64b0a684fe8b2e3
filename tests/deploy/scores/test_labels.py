"""labels.py: equal to the labels of the resized scores, for any sizes, ties and values."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from deploy.scores import labels
from deploy.scores.labels import decide, labels_at
from deploy.scores.upsampling import softmax, upsample

SHAPES = array_shapes(min_dims=3, max_dims=3, max_side=6)
COARSE = st.integers(-2, 2).map(float)
"""Scores with many ties."""
FINE = st.floats(-30, 30, width=32)
EXTREMES = [float(np.float32(x)) for x in (np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-40)]
WILD = st.one_of(FINE, st.sampled_from(EXTREMES))
SIDES = st.integers(1, 40)


@pytest.mark.parametrize("values", [COARSE, FINE, WILD], ids=["ties", "fine", "wild"])
@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
def test_equals_the_arg_max_of_resized_scores(values):
    @given(SHAPES.flatmap(lambda shape: arrays(np.float32, shape, elements=values)), SIDES, SIDES)
    @settings(deadline=None, max_examples=60)
    def check(scores, height, width):
        expected = decide(upsample(scores, (height, width)))
        np.testing.assert_array_equal(labels_at(scores, (height, width)), expected)

    check()


@given(
    st.tuples(st.just(2), st.integers(1, 6), st.integers(1, 6)).flatmap(
        lambda shape: arrays(np.float32, shape, elements=st.one_of(FINE, COARSE))
    ),
    SIDES,
    SIDES,
    st.one_of(st.sampled_from([0.0, 1.0, 0.5]), st.floats(0, 1)),
)
@settings(deadline=None, max_examples=80)
def test_equals_the_threshold_on_resized_scores(scores, height, width, threshold):
    expected = softmax(upsample(scores, (height, width)))[1] >= threshold
    np.testing.assert_array_equal(labels_at(scores, (height, width), threshold), expected)


@pytest.mark.parametrize("classes", [2, 11, 40])
@pytest.mark.parametrize(("cells", "size"), [((40, 40), (320, 320)), ((19, 25), (270, 480))])
def test_smooth_scores(classes, cells, size):
    rng = np.random.default_rng(classes)
    scores = upsample(rng.normal(0, 4, (classes, 6, 7)).astype(np.float32), cells)
    scores += rng.normal(0, 0.1, scores.shape).astype(np.float32)
    np.testing.assert_array_equal(labels_at(scores, size), decide(upsample(scores, size)))


def test_squares_with_few_classes_are_all_that_is_computed(monkeypatch):
    """Where the halves of an image have one class each, only the column of squares between them is computed."""
    computed = []
    original = labels._resized
    monkeypatch.setattr(
        labels, "_resized", lambda cells, *rest: computed.append(cells.shape[1]) or original(cells, *rest)
    )
    scores = np.zeros((3, 20, 20), np.float32)
    scores[0, :, :10], scores[1], scores[2, :, 10:] = 5, -9, 5
    result = labels_at(scores, (160, 160))
    assert computed == [21, 21]
    assert (result[:, :76] == 0).all()
    assert (result[:, 84:] == 2).all()


def test_scores_are_not_changed():
    scores = np.random.default_rng(0).normal(size=(4, 9, 9)).astype(np.float32)
    before = scores.copy()
    labels_at(scores, (70, 70))
    labels_at(scores[:2], (70, 70), 0.4)
    np.testing.assert_array_equal(scores, before)


def test_ties_go_to_the_first_class():
    assert not labels_at(np.ones((5, 3, 3), np.float32), (24, 24)).any()
