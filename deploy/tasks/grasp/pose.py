"""Poses of grasps in space: from pixels and depth to meters, for a pinhole camera without distortion."""

from typing import NamedTuple

import msgspec
import numpy as np

from deploy.errors import UserError
from deploy.inference.depth import warn_of_millimeters
from deploy.tasks.grasp.geometry import ANGLE, WIDTH, X, Y

AROUND = (2, 8)
"""Half sides in pixels of the squares around a grasp in which depth is searched; the larger only if needed."""


class Camera(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Intrinsics of a pinhole camera in pixels of the image: pixel (x, y) sees ((x - cx) / fx, (y - cy) / fy, 1)."""

    fx: float
    fy: float
    cx: float
    cy: float

    def __post_init__(self) -> None:
        if not (self.fx > 0 and self.fy > 0 and np.isfinite([self.fx, self.fy, self.cx, self.cy]).all()):
            raise UserError(
                f"camera: focal lengths {self.fx:g}, {self.fy:g} must be above 0, and all values finite"
            )


class Poses(NamedTuple):
    """N grasps in the frame of the camera: x to the right of the image, y down, z away from the camera; meters."""

    points: np.ndarray
    """float64 N×3: target of the center between the jaws; NaN if no depth was measured near a grasp."""
    openings: np.ndarray
    """float64 N: opening of the gripper."""
    matrices: np.ndarray
    """float64 N×4×4, gripper to camera: x is along the opening, z is the approach direction, away from the camera."""


def to_camera(grasps: np.ndarray, depth: np.ndarray, camera: Camera) -> Poses:
    """Poses of the grasps of an image, for a gripper that approaches along the optical axis.

    The depth of a grasp is the median of the measured depth in a small square around its center, or else in a larger
    one; NaN if that has no measurement. The opening is the distance between its two ends at that depth.

    Args:
        grasps: N×5 in pixels of `depth`.
        depth: H×W in meters along z; NaN and values of 0 or less are holes. Values too large for meters emit a
            RuntimeWarning.
        camera: intrinsics for an image of that size.

    Raises:
        UserError: `depth` is not H×W.
    """
    if depth.ndim != 2:
        raise UserError(f"depth is H×W in meters, this array has shape {depth.shape}")
    warn_of_millimeters(depth)
    grasps = np.asarray(grasps, np.float64).reshape(-1, 5)
    z = np.array([_depth_at(depth, x, y) for x, y in grasps[:, [X, Y]]]).reshape(-1)
    points = _in_space(grasps[:, X], grasps[:, Y], z, camera)
    half = grasps[:, WIDTH] / 2
    dx, dy = half * np.cos(grasps[:, ANGLE]), -half * np.sin(grasps[:, ANGLE])
    one = _in_space(grasps[:, X] - dx, grasps[:, Y] - dy, z, camera)
    other = _in_space(grasps[:, X] + dx, grasps[:, Y] + dy, z, camera)
    openings = np.linalg.norm(other - one, axis=1)
    return Poses(points, openings, _matrices(points, other - one))


def _matrices(points: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Right-handed frames at `points` N×3 with x in the direction `along`, which lies in a plane of equal depth."""
    matrices = np.tile(np.eye(4), (len(points), 1, 1))
    x = along / np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-12)
    z = np.broadcast_to([0.0, 0.0, 1.0], x.shape)
    for column, axis in enumerate((x, np.cross(z, x), z, points)):
        matrices[:, :3, column] = axis
    return matrices


def _in_space(x: np.ndarray, y: np.ndarray, z: np.ndarray, camera: Camera) -> np.ndarray:
    return np.stack([(x - camera.cx) / camera.fx * z, (y - camera.cy) / camera.fy * z, z], axis=1)


def _depth_at(depth: np.ndarray, x: float, y: float) -> float:
    row, column = round(y), round(x)
    for reach in AROUND:
        rows, columns = (slice(max(0, at - reach), max(0, at + reach + 1)) for at in (row, column))
        square = depth[rows, columns]
        measured = square[np.isfinite(square) & (square > 0)]
        if measured.size:
            return float(np.median(measured))
    return float("nan")
