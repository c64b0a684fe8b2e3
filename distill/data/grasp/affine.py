"""Moving grasps together with the image they lie in, by one affine matrix.

A matrix is float64 2×3 and takes a point (x, y) of the image before to its place after; pixel (column, row) has its
center at (column, row), as in `deploy.tasks.grasp.geometry` and in `cv2.warpAffine`.
"""

import numpy as np

from deploy.tasks.grasp.geometry import ANGLE, HEIGHT, WIDTH, X, Y, wrap_angle


def moved(grasps: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Grasps N×5 where `matrix` brings them: a turn turns them, a mirror negates their angle, a zoom scales their size.

    Exact where the matrix keeps angles. Where it stretches one side of the image more than the other, a rectangle
    becomes a parallelogram; then the opening keeps its direction and length in the new image, and the jaws their
    length.
    """
    grasps = np.asarray(grasps, np.float64).reshape(-1, 5)
    linear, shift = matrix[:, :2], matrix[:, 2]
    cos, sin = np.cos(grasps[:, ANGLE]), np.sin(grasps[:, ANGLE])
    along = np.stack([cos, -sin], axis=1) @ linear.T
    across = np.stack([sin, cos], axis=1) @ linear.T
    result = np.empty_like(grasps)
    result[:, [X, Y]] = grasps[:, [X, Y]] @ linear.T + shift
    result[:, ANGLE] = wrap_angle(np.arctan2(-along[:, 1], along[:, 0]))
    result[:, WIDTH] = grasps[:, WIDTH] * np.hypot(along[:, 0], along[:, 1])
    result[:, HEIGHT] = grasps[:, HEIGHT] * np.hypot(across[:, 0], across[:, 1])
    return result


def turning(
    before: tuple[float, float],
    after: tuple[float, float],
    angle: float,
    zoom: float,
    flips: tuple[bool, bool],
) -> np.ndarray:
    """The matrix that brings the point `before` (x, y) to `after`: it mirrors, zooms and then turns around it.

    Args:
        angle: radians, counterclockwise as the image is looked at.
        zoom: 2 shows everything twice as large.
        flips: left-right, top-bottom.
    """
    cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
    linear = np.array([[cos, sin], [-sin, cos]]) * np.where(flips, -1.0, 1.0)
    return np.column_stack([linear, np.array(after) - linear @ np.array(before)])
