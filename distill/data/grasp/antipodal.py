"""Grasps of a parallel gripper from the geometry of a scene.

Two fingers can hold an object at two points of its outline if the line between the points lies in the friction cones of
both (Nguyen, "Constructing force-closure grasps", IJRR 1988), the gripper opens wide enough, and there is clearance for
both fingers beside the object.
"""

from dataclasses import dataclass

import numpy as np

from distill.data.grasp.objects import Contour

CORNER = np.cos(np.radians(40))
"""Cosine of the largest turn of a smooth contour; a sharper corner has no normal, so no finger is placed there."""


@dataclass(frozen=True)
class Gripper:
    """A parallel gripper that approaches from above; lengths in meters."""

    friction: float = 0.4
    """Friction coefficient between finger and object."""
    opening: float = 0.1
    """Largest distance between the fingers."""
    min_width: float = 0.006
    """Thinnest object that it can hold."""
    margin: float = 0.005
    """Clearance between finger and object on either side before the gripper closes."""
    thickness: float = 0.01
    """Thickness of a finger, along the opening."""
    jaw: float = 0.02
    """Width of a finger, across the opening."""
    reach: float = 0.025
    """How far the fingertips go below an object's top, unless they reach the table first."""
    above_table: float = 0.005
    """Smallest distance between fingertips and table."""


@dataclass(frozen=True, eq=False)
class HeightMap:
    """Heights above the table, float32 H×W in meters; a pixel is `pixel` meters, (0, 0) is the scene's upper left."""

    heights: np.ndarray
    pixel: float

    def at(self, points: np.ndarray) -> np.ndarray:
        """Heights at points …×2 (x, y) in meters; infinite outside the scene."""
        columns, rows = np.floor(np.moveaxis(points, -1, 0) / self.pixel).astype(np.intp)
        inside = (
            (rows >= 0) & (columns >= 0) & (rows < self.heights.shape[0]) & (columns < self.heights.shape[1])
        )
        rows, columns = np.where(inside, rows, 0), np.where(inside, columns, 0)
        return np.where(inside, self.heights[rows, columns], np.inf)


def antipodal_grasps(
    contours: tuple[Contour, ...],
    scene: HeightMap,
    gripper: Gripper,
    rng: np.random.Generator,
    max_grasps: int,
) -> np.ndarray:
    """A random selection of the possible grasps of an object.

    Args:
        contours: contours of the object at its place in the scene, the outline first, then holes; evenly spaced points.
        scene: heights of all objects.
        gripper: the gripper.
        rng: source of all random numbers.
        max_grasps: largest number of grasps.

    Returns:
        float64 N×4: x, y, angle, width, in meters and radians. The width is the distance of the contacts plus the
        margin on both sides; the angle is as in `deploy.tasks.grasp.geometry`.
    """
    points, normals = _boundary(contours)
    first, second = _pairs(points, normals, gripper)
    order = rng.permutation(len(first))[: 8 * max_grasps]
    first, second = points[first[order]], points[second[order]]
    free = _has_clearance(first, second, scene, gripper)
    first, second = first[free][:max_grasps], second[free][:max_grasps]
    along, middle = second - first, (first + second) / 2
    width = np.linalg.norm(along, axis=1) + 2 * gripper.margin
    return np.column_stack([middle, np.arctan2(-along[:, 1], along[:, 0]), width])


def _boundary(contours: tuple[Contour, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Points of all contours except sharp corners, and their unit normals into the object, both P×2."""
    points, normals = [], []
    for index, contour in enumerate(contours):
        before, after = contour - np.roll(contour, 1, axis=0), np.roll(contour, -1, axis=0) - contour
        smooth = (_unit(before) * _unit(after)).sum(axis=1) > CORNER
        along = _unit(before + after)
        normal = np.stack([-along[:, 1], along[:, 0]], axis=1)
        following = np.roll(contour, -1, axis=0)
        turns_right = (contour[:, 0] * following[:, 1] - contour[:, 1] * following[:, 0]).sum() > 0
        points.append(contour[smooth])
        normals.append((normal if turns_right == (index == 0) else -normal)[smooth])
    return np.concatenate(points), np.concatenate(normals)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _pairs(points: np.ndarray, normals: np.ndarray, gripper: Gripper) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the first and second point of each pair that can be held, in a fixed order."""
    along = points[None] - points[:, None]
    distance = np.linalg.norm(along, axis=2)
    held = (distance >= gripper.min_width) & (distance + 2 * gripper.margin <= gripper.opening)
    cone = np.cos(np.arctan(gripper.friction)) * distance
    held &= (along * normals[:, None]).sum(axis=2) >= cone
    held &= -(along * normals[None]).sum(axis=2) >= cone
    first, second = np.nonzero(np.triu(held, 1))
    return first, second


def _has_clearance(first: np.ndarray, second: np.ndarray, scene: HeightMap, gripper: Gripper) -> np.ndarray:
    """Whether both fingers of each grasp can be lowered without a collision: bool N."""
    along = _unit(second - first)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    # Height of what lies between the fingers, and of the lowered fingertips.
    top = scene.at(first[:, None] + (second - first)[:, None] * np.linspace(0.05, 0.95, 7)[None, :, None])
    tip = np.maximum(top.max(axis=1) - gripper.reach, gripper.above_table)
    outwards = np.linspace(gripper.margin, gripper.margin + gripper.thickness, 4)
    sideways = np.linspace(-gripper.jaw / 2, gripper.jaw / 2, 7)
    free = top.max(axis=1) > 2 * gripper.above_table
    for end, sign in ((first, -1.0), (second, 1.0)):
        places = (
            end[:, None, None]
            + sign * outwards[None, :, None, None] * along[:, None, None]
            + sideways[None, None, :, None] * across[:, None, None]
        )
        free &= (scene.at(places) < tip[:, None, None]).all(axis=(1, 2))
    return free
