"""Peaks, angles and widths of maps: drawn grasps are found, and smoothing equals SciPy's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from skimage.feature import peak_local_max

from deploy.errors import UserError
from deploy.tasks.grasp.decode import decode, find_peaks, smoothed, to_image
from deploy.tasks.grasp.geometry import angle_between, wrap_angle
from distill.data.grasp.targets import encode

SIDE = 300


@pytest.mark.parametrize("sigma", [1.0, 2.0, 3.7])
@pytest.mark.parametrize("shape", [(40, 57), (9, 8)])
def test_smoothing_is_scipys(sigma, shape):
    plane = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    if 3 * sigma < min(shape):  # numpy mirrors once, SciPy repeatedly
        np.testing.assert_allclose(
            smoothed(plane, sigma), gaussian_filter(plane, sigma, truncate=3), atol=1e-6
        )


@settings(max_examples=150, deadline=None)
@given(
    st.floats(80, 220),
    st.floats(80, 220),
    st.floats(-np.pi / 2, np.pi / 2, exclude_max=True),
    st.floats(24, 120),
    st.floats(10, 40),
)
def test_what_is_drawn_is_found(x, y, angle, width, height):
    """To a pixel, if the jaws are not wider than the opening (see `distill.data.grasp.targets.encode`)."""
    height = min(height, width)
    grasps, qualities = decode(encode(np.array([[x, y, angle, width, height]]), SIDE, SIDE), count=1)
    found = grasps[0]
    assert np.hypot(found[0] - x, found[1] - y) <= 1
    assert np.degrees(angle_between(found[2], angle)) <= 1
    assert found[3] == pytest.approx(width, rel=0.02)
    assert 0 < qualities[0] <= 1


def test_several_grasps_come_by_falling_quality():
    truth = np.array([[60, 60, 0.4, 50, 20], [200, 80, -1.2, 60, 24], [150, 220, 1.5, 40, 16.0]])
    maps = sum(
        encode(one[None], SIDE, SIDE) * np.array([weight, 1, 1, 1], np.float32)[:, None, None]
        for one, weight in zip(truth, (0.6, 0.9, 0.75), strict=True)
    )
    grasps, qualities = decode(maps, count=5)
    np.testing.assert_allclose(grasps[:, :2], truth[[1, 2, 0], :2], atol=1)
    assert (np.diff(qualities) < 0).all()
    assert len(decode(maps, count=2)[0]) == 2


def test_peaks_are_scikit_images():
    """On a surface without plateaus, to the pixel."""
    rng = np.random.default_rng(1)
    for _ in range(5):
        surface = gaussian_filter(rng.random((120, 150)).astype(np.float32), 3)
        surface = (surface - surface.min()) / np.ptp(surface)
        expected = peak_local_max(
            surface, min_distance=8, threshold_abs=0.6, exclude_border=False, num_peaks=6
        )
        found = find_peaks(surface, None, 6, 8, 0.6)
        assert len(found) == len(expected)
        # they may move a little on a plateau
        assert np.abs(found - expected).max() < 8
        heights = surface[tuple(np.rint(found).astype(int).T)]
        assert (heights >= 0.94 * surface[tuple(expected.T)]).all()


def test_the_middle_of_an_object_that_can_be_held_anywhere():
    maps = np.zeros((4, 100, 200), np.float32)
    maps[:2, 40:50, 60:120], maps[3, 40:50, 60:120] = 1, 0.5
    grasps, _ = decode(maps)
    assert grasps[0, :2] == pytest.approx([89.5, 44.5], abs=1)
    assert grasps[0, 3] == pytest.approx(25, rel=0.02)


def test_nothing_to_grasp():
    grasps, qualities = decode(np.zeros((4, 50, 50), np.float32), count=3)
    assert grasps.shape == (0, 5)
    assert qualities.shape == (0,)


def test_no_grasp_where_pixels_do_not_count():
    maps = encode(np.array([[30, 30, 0, 30, 12], [70, 70, 0, 30, 12.0]]), 100, 100)
    valid = np.ones((100, 100), bool)
    valid[:50, :50] = False
    grasps, _ = decode(maps, valid=valid, count=5)
    assert len(grasps) == 1
    assert grasps[0, :2] == pytest.approx([70, 70], abs=1)


def test_maps_that_are_none():
    with pytest.raises(UserError, match=r"4×H×W, these have shape \(3, 8, 8\)"):
        decode(np.zeros((3, 8, 8), np.float32))
    with pytest.raises(UserError, match="not finite"):
        decode(np.full((4, 8, 8), np.nan, np.float32))


@given(
    st.floats(0, 300),
    st.floats(0, 300),
    st.floats(-1.5, 1.5),
    st.floats(5, 100),
    st.sampled_from([(480, 640), (300, 300), (150, 600)]),
)
def test_to_the_image_and_back(x, y, angle, width, size):
    grasp = np.array([[x, y, angle, width, width / 2]])
    there = to_image(grasp, (300, 300), size)
    back = to_image(there, size, (300, 300))
    assert back[0, [0, 1, 3, 4]] == pytest.approx(grasp[0, [0, 1, 3, 4]], abs=1e-6)
    assert angle_between(back[0, 2], angle) < 1e-9


def test_stretching_turns_a_grasp():
    there = to_image(np.array([[10, 10, np.pi / 4, 10, 4]]), (100, 100), (100, 200))[0]
    assert there[:2] == pytest.approx([20.5, 10])
    assert there[2] == pytest.approx(np.arctan2(1, 2))
    assert there[3] == pytest.approx(10 * np.hypot(2, 1) / np.sqrt(2))
    assert wrap_angle(there[2]) == there[2]
