"""Target maps: which pixels belong to a grasp, what they hold, and that grasps can be read back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.tasks.grasp.decode import to_image
from deploy.tasks.grasp.geometry import MAPS, angle_between
from distill.data.grasp.affine import similarity_matrix, transform_grasps
from distill.data.grasp.targets import encode

SIDE = 120


def grasp(x=60.0, y=50.0, angle=0.0, width=30.0, height=10.0) -> np.ndarray:
    return np.array([[x, y, angle, width, height]])


def read(maps: np.ndarray) -> tuple[float, float, float, float]:
    """x, y, angle and opening of the only grasp: the middle of its pixels, and what they hold."""
    rows, columns = np.nonzero(maps[0])
    _, cos, sin, width = maps[:, rows[0], columns[0]]
    return columns.mean(), rows.mean(), np.arctan2(sin, cos) / 2, width * min(maps.shape[1:]) / 2


@given(
    st.builds(
        grasp,
        x=st.floats(40, 80),
        y=st.floats(40, 80),
        angle=st.floats(-np.pi / 2, np.pi / 2, exclude_max=True),
        width=st.floats(9, 58),
        height=st.floats(4, 40),
    ).filter(
        lambda one: one[0, 4] <= one[0, 3]
    )  # wider jaws: a row of pixels that is half in moves the middle by more
)
def test_a_grasp_can_be_read_back(one):
    x, y, angle, width = read(encode(one, SIDE, SIDE))
    assert np.hypot(x - one[0, 0], y - one[0, 1]) < 1
    assert angle_between(angle, one[0, 2]) < np.radians(1)
    assert width == pytest.approx(one[0, 3], rel=0.02)


def test_pixels_are_those_whose_centers_lie_in_the_middle_third():
    """Independently: every pixel of the image against the rectangle's edges."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        center, size = (rng.uniform(20, 100), rng.uniform(20, 100)), (rng.uniform(9, 50), rng.uniform(9, 50))
        one = grasp(*center, rng.uniform(-1.5, 1.5), *size)
        x, y, angle, width, height = one[0]
        rows, columns = np.mgrid[:SIDE, :SIDE]
        turned = ((columns - x) + 1j * (y - rows)) * np.exp(-1j * angle)
        inside = (abs(turned.real) <= width / 6) & (abs(turned.imag) <= height / 2)
        assert np.array_equal(encode(one, SIDE, SIDE)[0] == 1, inside)


def test_pixels_on_the_edge_count_on_both_sides():
    maps = encode(grasp(60, 50, 0, 12, 6), SIDE, SIDE)
    assert maps.shape == (len(MAPS), SIDE, SIDE)
    assert maps.dtype == np.float32
    rows, columns = np.nonzero(maps[0])
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (58, 62, 47, 53)
    assert len(rows) == 5 * 7


def test_what_the_maps_hold():
    maps = encode(grasp(angle=np.pi / 6, width=30), SIDE, SIDE)
    assert maps[:, 50, 60] == pytest.approx([1, 0.5, np.sqrt(3) / 2, 0.5])
    assert not maps[:, 10, 10].any()


def test_width_is_at_most_one():
    assert encode(grasp(width=200), SIDE, SIDE)[3].max() == 1


def test_the_width_counts_in_half_the_shorter_side():
    assert encode(grasp(width=30), 100, 300)[3].max() == pytest.approx(0.6)


def test_a_thin_grasp_has_at_least_the_pixel_nearest_to_its_center():
    maps = encode(grasp(60.4, 50.4, 0.2, 0.3, 0.3), SIDE, SIDE)
    assert np.argwhere(maps[0]).tolist() == [[50, 60]]


def test_where_grasps_overlap_the_nearest_center_counts_whatever_the_order():
    pair = np.concatenate([grasp(58, angle=0.2, width=40), grasp(63, angle=-0.7, width=36)])
    maps = encode(pair, SIDE, SIDE)
    assert np.array_equal(maps, encode(pair[::-1], SIDE, SIDE))
    for one in pair:
        x, y = one[:2].astype(int)
        assert maps[3, y, x] == pytest.approx(one[3] / 60)


def test_parts_outside_are_cut_off():
    maps = encode(np.concatenate([grasp(-2, 50), grasp(60, 125), grasp(-80, -80), grasp(500, 3)]), SIDE, SIDE)
    assert maps[0, 50, 0] == 1
    assert maps[0, 119, 60] == 0  # 125 - 5 > 119
    assert maps[0].sum() == maps[0, :, :4].sum()


def test_no_grasps():
    assert not encode(np.zeros((0, 5)), 8, 9).any()


# Moving


def test_a_quarter_turn_of_the_grasps_is_one_of_the_maps():
    rng = np.random.default_rng(1)
    grasps = np.column_stack(
        [rng.uniform(0, 119, (9, 2)), rng.uniform(-1.5, 1.5, 9), rng.uniform(9, 50, (9, 2))]
    )
    middle = (SIDE - 1) / 2, (SIDE - 1) / 2
    turn = similarity_matrix(middle, middle, np.pi / 2, 1, (False, False))
    maps = encode(grasps, SIDE, SIDE)
    expected = np.rot90(maps, axes=(1, 2)) * np.array([1, -1, -1, 1])[:, None, None]
    assert np.allclose(encode(transform_grasps(grasps, turn), SIDE, SIDE), expected, atol=1e-6)


@pytest.mark.parametrize(("flips", "axis"), [((True, False), 2), ((False, True), 1)])
def test_a_mirror_negates_the_angle(flips, axis):
    middle = (SIDE - 1) / 2, (SIDE - 1) / 2
    one = grasp(40, 50, 0.4)
    mirrored = transform_grasps(one, similarity_matrix(middle, middle, 0, 1, flips))
    assert mirrored[0, 2:] == pytest.approx([-0.4, 30, 10])
    expected = np.flip(encode(one, SIDE, SIDE), axis) * np.array([1, 1, -1, 1])[:, None, None]
    assert np.allclose(encode(mirrored, SIDE, SIDE), expected, atol=1e-6)


def test_a_zoom_scales_the_sizes_and_a_turn_adds_to_the_angle():
    one = transform_grasps(grasp(70, 50, 0.3), similarity_matrix((60, 50), (10, 20), 0.5, 2, (False, False)))
    assert one[0] == pytest.approx([10 + 20 * np.cos(0.5), 20 - 20 * np.sin(0.5), 0.8, 60, 20])


def test_resizing_keeps_edges_on_edges():
    corners = np.array([[-0.5, -0.5, 0, 10, 4], [59.5, 39.5, 0, 10, 4]])
    resized = to_image(corners, (40, 60), (20, 30))
    assert resized.tolist() == [[-0.5, -0.5, 0, 5, 2], [29.5, 19.5, 0, 5, 2]]


def test_unequal_stretch_moves_the_opening_as_the_image_moves():
    one = to_image(grasp(0, 0, np.pi / 4, np.sqrt(2), 1), (10, 10), (10, 20))
    assert one[0, 2:4] == pytest.approx([np.arctan2(1, 2), np.sqrt(5)])
