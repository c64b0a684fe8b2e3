"""Affine transforms that apply to an image and its grasps alike.

A matrix is float64 2×3 and maps a point (x, y) of the source image to the target image. The center of pixel
(column, row) is the point (column, row), as in `deploy.tasks.grasp.geometry` and `cv2.warpAffine`.
"""

import numpy as np

from deploy.tasks.grasp.geometry import ANGLE, HEIGHT, WIDTH, X, Y, wrap_angle


def transform_grasps(grasps: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Apply an affine matrix to grasps N×5: rotation adds to their angle, mirroring negates it, zoom scales their size.

    Exact if the matrix preserves angles. If it stretches the axes differently, a rectangle becomes a parallelogram;
    then the direction and length of the opening and the length of the jaws are those of its sides.
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


def similarity_matrix(
    source: tuple[float, float],
    target: tuple[float, float],
    angle: float,
    zoom: float,
    flips: tuple[bool, bool],
) -> np.ndarray:
    """The matrix that mirrors, zooms and then rotates an image around a point, and moves that point.

    Args:
        source: the point (x, y) in the source image.
        target: the same point in the target image.
        angle: radians, counterclockwise as seen in the image.
        zoom: 2 makes everything twice as large.
        flips: mirror left-right, top-bottom.

    Returns:
        float64 2×3.
    """
    cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
    linear = np.array([[cos, sin], [-sin, cos]]) * np.where(flips, -1.0, 1.0)
    return np.column_stack([linear, np.array(target) - linear @ np.array(source)])
