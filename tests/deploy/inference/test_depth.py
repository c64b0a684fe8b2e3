"""Depth before the network: holes filled from their surroundings, and depth relative to its mean."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deploy.inference.depth import REACH, center, fill_holes, warn_of_millimeters


def plane(height=48, width=61) -> np.ndarray:
    """A tilted table, in meters."""
    y, x = np.mgrid[:height, :width]
    return (0.6 + 0.002 * x + 0.001 * y).astype(np.float32)


def test_known_pixels_stay_and_the_input_is_not_changed():
    depth = plane()
    depth[10:20, 5:30] = np.nan
    before = depth.copy()
    filled, known = fill_holes(depth)
    assert np.array_equal(depth, before, equal_nan=True)
    assert np.array_equal(filled[known], depth[known])
    assert np.array_equal(known, ~np.isnan(depth))
    assert filled.dtype == np.float32


def test_without_holes_it_is_a_copy():
    depth = plane()
    filled, known = fill_holes(depth)
    assert known.all()
    assert np.array_equal(filled, depth)
    assert not np.shares_memory(filled, depth)


@pytest.mark.parametrize("hole", [np.nan, np.inf, -np.inf, 0.0, -1.0])
def test_what_cameras_write_into_holes_is_one(hole):
    depth = plane()
    depth[3, 4] = hole
    filled, known = fill_holes(depth)
    assert not known[3, 4]
    assert known.sum() == known.size - 1
    assert filled[3, 4] == pytest.approx(plane()[3, 4], abs=0.005)


def test_a_hole_in_a_plane_is_filled_near_the_plane():
    depth = plane(300, 300)
    y, x = np.mgrid[:300, :300]
    depth[np.hypot(x - 150, y - 120) < 15] = np.nan
    filled, known = fill_holes(depth)
    assert np.abs(filled - plane(300, 300))[~known].max() < 0.03  # it rises by 0.067 across the hole


def test_a_hole_at_the_border_and_a_lone_pixel():
    depth = np.full((7, 5), np.nan)
    depth[2, 3] = 0.8
    filled, known = fill_holes(depth)
    assert np.allclose(filled, 0.8)
    assert known.sum() == 1


def test_nothing_measured_gives_zeros():
    filled, known = fill_holes(np.full((9, 4), np.nan, np.float32))
    assert not known.any()
    assert np.array_equal(filled, np.zeros((9, 4), np.float32))
    assert np.array_equal(center(filled, known), filled)


def test_integers_are_depth_too():
    filled, _ = fill_holes(np.array([[1, 0], [3, 3]], np.uint16))
    assert filled.tolist()[1] == [3.0, 3.0]
    assert 1 <= filled[0, 1] <= 3


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=13),
        elements=st.one_of(st.just(np.float32(np.nan)), st.floats(0.25, 4, width=32)),
    )
)
def test_filled_pixels_lie_between_known_ones(depth):
    filled, known = fill_holes(depth)
    assert np.isfinite(filled).all()
    if known.any():
        assert filled.min() >= depth[known].min() * (1 - 1e-6)
        assert filled.max() <= depth[known].max() * (1 + 1e-6)


def test_centered_depth_has_no_mean_and_is_clipped():
    depth = plane()
    assert center(depth).mean() == pytest.approx(0, abs=1e-6)
    assert center(depth).dtype == np.float32
    depth[0, 0], depth[0, 1] = 9, -9
    assert center(depth).max() == REACH
    assert center(depth).min() == -REACH


def test_the_mean_can_be_that_of_some_pixels():
    depth = np.array([[1.0, 3.0, 0.0]], np.float32)
    assert center(depth, np.array([[True, True, False]])).tolist() == [[-1.0, 1.0, -1.0]]


def test_millimeters_are_told_from_meters():
    with pytest.warns(RuntimeWarning, match="looks like millimeters; meters are expected"):
        warn_of_millimeters(plane() * 1000)
    holes = np.full((9, 9), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_millimeters(plane())
        warn_of_millimeters(holes)
        warn_of_millimeters(np.zeros((0, 3)))
