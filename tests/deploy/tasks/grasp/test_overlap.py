"""IoU of rectangles agrees with shapely, degenerate ones included."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.tasks.grasp.geometry import corners
from deploy.tasks.grasp.overlap import iou


def by_shapely(a, b):
    one, other = (shapely.Polygon(corners(np.array([g]))[0]) for g in (a, b))
    # on a grid: without one GEOS loses the whole intersection where edges nearly coincide
    shared = shapely.intersection(one, other, grid_size=1e-9).area
    union = one.area + other.area - shared
    return shared / union if union > 0 else 0.0


coordinates = st.floats(-100, 100)
sizes = st.floats(0.5, 150)
grasp = st.tuples(coordinates, coordinates, st.floats(-1.6, 1.6), sizes, sizes)


@settings(max_examples=300)
@given(grasp, grasp)
def test_random_rectangles(a, b):
    assert iou([a], [b])[0, 0] == pytest.approx(by_shapely(a, b), abs=1e-6)


ONE = (10.0, 20.0, 0.3, 40.0, 15.0)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (ONE, ONE),
        (ONE, (10.0, 20.0, 0.3 + 1e-9, 40.0, 15.0)),
        (ONE, (10.0, 20.0, 0.3 + np.pi / 2, 40.0, 15.0)),
        (ONE, (10.0, 20.0, 0.3, 20.0, 5.0)),  # inside
        (ONE, (500.0, 20.0, 0.3, 40.0, 15.0)),  # far away
        ((0, 0, 0, 10, 10), (10, 0, 0, 10, 10)),  # along an edge
        ((0, 0, 0, 10, 10), (10, 10, 0, 10, 10)),  # at a corner
        ((1000, 1000, 1, 10, 10), (1001, 1000, 1, 10, 10)),
        (
            (0.0, 74.25, -0.5003067879812881, 74.234375, 110.0),
            (0.0, 74.25, -0.5003067879812881, 108.0, 110.0),
        ),
    ],
)
def test_special_cases(a, b):
    assert iou([a], [b])[0, 0] == pytest.approx(by_shapely(a, b), abs=1e-6)
    assert iou([b], [a])[0, 0] == pytest.approx(iou([a], [b])[0, 0], abs=1e-9)


def test_without_area_there_is_no_overlap():
    flat = (10.0, 20.0, 0.3, 40.0, 0.0)
    assert iou([flat, ONE], [flat]).tolist() == [[0], [0]]


def test_all_pairs_at_once():
    rng = np.random.default_rng(0)
    a, b = (
        np.column_stack([rng.uniform(0, 60, (n, 2)), rng.uniform(-2, 2, n), rng.uniform(5, 50, (n, 2))])
        for n in (7, 9)
    )
    expected = [[by_shapely(x, y) for y in b] for x in a]
    np.testing.assert_allclose(iou(a, b), expected, atol=1e-9)
    assert iou(a[:0], b).shape == (0, 9)
