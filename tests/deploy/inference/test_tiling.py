"""Sliding windows: they cover the image, stay inside it, and change nothing for a pointwise network."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.errors import UserError
from deploy.inference.tiling import predict_strips, predict_tiled, windows

sides = st.integers(1, 40)
window_sizes = st.tuples(st.integers(1, 17), st.integers(1, 17))
overlaps = st.floats(0, 0.95)


def pointwise(batch):
    """A network of two classes that looks at one pixel at a time: N×h×w×C → N×2×h×w."""
    x = batch.astype(np.float32)
    return np.stack([x.sum(axis=-1), 3 - 2 * x[..., 0]], axis=1)


def noise(height, width, channels=3):
    return np.random.default_rng(0).random((height, width, channels), np.float32)


@given(height=sides, width=sides, window=window_sizes, overlap=overlaps)
def test_windows_cover_the_image_and_stay_inside(height, width, window, overlap):
    seen = np.zeros((height, width), int)
    found = windows(height, width, window, overlap)
    for rows, columns in found:
        assert (rows.stop - rows.start, columns.stop - columns.start) == window
        assert 0 <= rows.start < rows.stop <= max(height, window[0])
        assert 0 <= columns.start < columns.stop <= max(width, window[1])
        seen[rows, columns] += 1
    assert seen.min() >= 1
    assert len({(rows.start, columns.start) for rows, columns in found}) == len(found)


def test_last_window_is_shifted_to_the_border():
    starts = [columns.start for _, columns in windows(4, 11, (4, 4), overlap=0.5)]
    assert starts == [0, 2, 4, 6, 7]


def test_no_overlap_on_a_multiple_tiles_exactly():
    assert len(windows(8, 12, (4, 4), overlap=0)) == 6


@given(height=sides, width=sides, window=window_sizes, overlap=overlaps, batch_size=st.integers(1, 5))
def test_pointwise_network_is_unchanged(height, width, window, overlap, batch_size):
    image = noise(height, width)
    tiled = predict_tiled(pointwise, image, window, overlap, batch_size=batch_size)
    assert tiled.dtype == np.float32
    np.testing.assert_allclose(tiled, pointwise(image[None])[0], atol=1e-5)


def test_a_single_window_is_exact():
    image = noise(5, 7)
    np.testing.assert_array_equal(predict_tiled(pointwise, image, (5, 7)), pointwise(image[None])[0])


@given(height=sides, window=st.integers(1, 12), overlap=overlaps)
def test_strips_are_the_rows_in_order(height, window, overlap):
    image = noise(height, 9)
    whole = predict_tiled(pointwise, image, (window, 4), overlap)
    following = 0
    for rows, scores in predict_strips(pointwise, image, (window, 4), overlap):
        assert rows.start == following
        np.testing.assert_array_equal(scores, whole[:, rows])
        following = rows.stop
    assert following == height


def test_middle_of_a_window_outweighs_its_border():
    calls = iter([0.0, 1.0])  # the first window says 0 everywhere, the second 1
    blend = predict_tiled(lambda batch: np.full((1, 1, 4, 8), next(calls), np.float32), noise(4, 12), (4, 8))
    ramp = blend[0, 0, 4:8]
    np.testing.assert_allclose(ramp, [1 / 5, 2 / 5, 3 / 5, 4 / 5])
    np.testing.assert_array_equal(blend[0, 0, :4], 0)
    np.testing.assert_array_equal(blend[0, 0, 8:], 1)


@pytest.mark.parametrize("fill", [5.0, (5.0, 6.0, 7.0)])
def test_small_image_is_padded_with_the_fill(fill):
    seen = []
    scores = predict_tiled(
        lambda batch: seen.append(batch) or pointwise(batch), noise(3, 4), (6, 8), fill=fill
    )
    assert scores.shape == (2, 3, 4)
    (batch,) = seen
    assert batch.shape == (1, 6, 8, 3)
    np.testing.assert_array_equal(batch[0, :3, :4], noise(3, 4))
    np.testing.assert_array_equal(batch[0, 3:], np.broadcast_to(np.float32(fill), (3, 8, 3)))
    np.testing.assert_array_equal(batch[0, :3, 4:], np.broadcast_to(np.float32(fill), (3, 4, 3)))


def test_image_smaller_on_one_axis_only():
    image = noise(3, 20)
    np.testing.assert_allclose(predict_tiled(pointwise, image, (8, 8)), pointwise(image[None])[0], atol=1e-5)


def test_coarse_scores_are_upsampled():
    image = np.full((12, 20, 1), 3, np.uint8)
    coarse = predict_tiled(lambda batch: pointwise(batch[:, ::4, ::4]), image, (8, 8))
    np.testing.assert_allclose(coarse, pointwise(image[None])[0], atol=1e-5)


@pytest.mark.parametrize("overlap", [-0.1, 1.0, 2.0])
def test_impossible_overlap_is_named(overlap):
    with pytest.raises(UserError, match=f"overlap of the sliding window is {overlap}"):
        windows(8, 8, (4, 4), overlap)
