"""Rectangles and angles: conversions are exact at the wrap-around, and reversible."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.tasks.grasp.geometry import angle_between, corners, from_corners, wrap_angle

numbers = st.floats(-1000, 1000)
sizes = st.floats(0.5, 500)
grasp = st.tuples(numbers, numbers, st.floats(-np.pi / 2, np.pi / 2, exclude_max=True), sizes, sizes)


@given(grasp)
def test_corners_and_back(one):
    back = from_corners(corners(np.array([one])))[0]
    assert back[[0, 1, 3, 4]] == pytest.approx(np.array(one)[[0, 1, 3, 4]], abs=1e-8)
    assert angle_between(back[2], one[2]) < 1e-9


def test_the_first_edge_runs_along_the_opening_and_angles_turn_counterclockwise():
    ring = corners([[0, 0, np.pi / 4, 2 * np.sqrt(2), 0.1]])[0]
    along = ring[1] - ring[0]
    assert along == pytest.approx([2, -2])  # to the right and up, where y falls


@given(st.floats(-50, 50), st.integers(-5, 5))
def test_half_turns_do_not_matter(angle, turns):
    assert angle_between(angle, angle + turns * np.pi) < 1e-9
    wrapped = wrap_angle(np.array(angle))
    assert -np.pi / 2 <= wrapped < np.pi / 2


def test_wrap_is_exact_at_a_right_angle():
    tiny = 1e-20
    assert wrap_angle(np.array([np.pi / 2, -np.pi / 2, -np.pi / 2 - tiny])) == pytest.approx(
        [-np.pi / 2] * 3, abs=0
    )
    assert np.degrees(angle_between(np.radians(89.9), np.radians(-89.9))) == pytest.approx(0.2)
