"""Grasps as oriented rectangles.

A grasp is five numbers, and N grasps are a float64 array N×5:

    x, y     center in pixels; x runs to the right, y down, and pixel (column, row) has its center at (column, row)
    angle    direction of the gripper's opening in radians, in [-π/2, π/2): 0 along +x, counterclockwise as seen in the
             image (y up), so +π/4 opens from the lower left to the upper right. A half turn gives the same grasp.
    width    opening of the gripper in pixels, along `angle`
    height   size of the jaws in pixels, across `angle`

This is the convention of GG-CNN (Morrison et al., RSS 2018, arXiv:1804.05172) and of Cornell's rectangles, whose first
edge runs along the opening.
"""

import numpy as np

X, Y, ANGLE, WIDTH, HEIGHT = range(5)
"""Columns of grasps."""
MAPS = ("quality", "cos2", "sin2", "width")
"""Outputs of a grasp network, in this order."""
GOOD = 0.5
"""Quality from which a pixel is labeled as a good grasp."""


def wrap_angle(angle: np.ndarray) -> np.ndarray:
    """Wrap a direction, which is periodic by half a turn, to [-π/2, π/2)."""
    wrapped = np.mod(np.asarray(angle, np.float64) + np.pi / 2, np.pi) - np.pi / 2
    return np.where(wrapped >= np.pi / 2, -np.pi / 2, wrapped)  # mod of a tiny negative number rounds up to π


def angle_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Smallest angle between two directions that are periodic by half a turn, in [0, π/2]."""
    return np.abs(wrap_angle(np.asarray(a) - np.asarray(b)))


def corners(grasps: np.ndarray) -> np.ndarray:
    """The corners of grasps N×5 in cyclic order, the first edge along the opening: float64 N×4×2 (x, y)."""
    grasps = np.asarray(grasps, np.float64).reshape(-1, 5)
    x, y, angle, width, height = grasps.T
    along = np.stack([np.cos(angle), -np.sin(angle)], axis=1) * (width / 2)[:, None]
    across = np.stack([np.sin(angle), np.cos(angle)], axis=1) * (height / 2)[:, None]
    center = np.stack([x, y], axis=1)
    ring = [
        center - along - across,
        center + along - across,
        center + along + across,
        center - along + across,
    ]
    return np.stack(ring, axis=1)


def from_corners(points: np.ndarray) -> np.ndarray:
    """Grasps N×5 from rectangles N×4×2 (x, y) whose first edge runs along the opening; the inverse of `corners`.

    If a quadrilateral is not exactly a rectangle, its corners and its opposite edges are averaged.
    """
    points = np.asarray(points, np.float64).reshape(-1, 4, 2)
    along = (points[:, 1] - points[:, 0] + points[:, 2] - points[:, 3]) / 2
    across = (points[:, 3] - points[:, 0] + points[:, 2] - points[:, 1]) / 2
    angle = wrap_angle(np.arctan2(-along[:, 1], along[:, 0]))
    sides = [np.hypot(edge[:, 0], edge[:, 1]) for edge in (along, across)]
    return np.column_stack([points.mean(1), angle, *sides])
