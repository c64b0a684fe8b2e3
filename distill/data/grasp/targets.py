"""What a grasp network should give: maps of quality, angle and width, drawn from the grasps of an image."""

import numpy as np

from deploy.tasks.grasp.geometry import MAPS, corners

SHARE = 1 / 3
"""Part of the opening, around the center, where a grasp is drawn."""

_EDGE = 1e-6
"""Pixels by which a rectangle is widened, so that centers right on its edge count on both sides whatever the turn."""


def encode(grasps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Draw grasps N×5 as float32 4×H×W: quality, cos 2θ, sin 2θ, width; 0 where there is no grasp.

    A pixel belongs to a grasp when its center lies in the middle third of the rectangle's opening, over the whole
    height of the jaws (GG-CNN, Morrison et al., RSS 2018, arXiv:1804.05172); at least the pixel nearest to the grasp's
    center does. Its quality is 1, and its width is the opening as a share of half the shorter side of the image, at
    most 1: in GG-CNN's 300×300 that is width / 150. Where grasps overlap, a pixel has angle and width of the one whose
    center is nearest, the first of those equally near: so order does not matter, and each grasp can be read at its own
    center (in GG-CNN the last of the file covers the others). Parts outside the image are cut off. The middle of its
    pixels is a grasp's center to a pixel, unless its jaws are wider than its opening.
    """
    maps = np.zeros((len(MAPS), height, width), np.float32)
    distance = np.full((height, width), np.inf, np.float32)
    drawn = np.array(grasps, np.float64).reshape(-1, 5)
    values = _values(drawn, min(height, width) / 2)
    drawn[:, 3] *= SHARE
    for grasp, ring, value in zip(drawn, corners(drawn), values, strict=True):
        rows, columns = _box(ring, grasp, height, width)
        inside, squared = _inside(grasp, rows, columns)
        nearest = distance[rows, columns]
        wins = inside & (squared < nearest)
        nearest[wins] = squared[wins]
        maps[:, rows, columns][:, wins] = value[:, None]
    return maps


def _values(grasps: np.ndarray, unit: float) -> np.ndarray:
    """What the four maps hold in each grasp: N×4."""
    angle, opening = grasps[:, 2], grasps[:, 3]
    return np.column_stack(
        [np.ones(len(grasps)), np.cos(2 * angle), np.sin(2 * angle), np.minimum(opening / unit, 1)]
    )


def _box(ring: np.ndarray, grasp: np.ndarray, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of the pixels that may lie in a rectangle 4×2, and of the one nearest to its center."""
    low = np.floor(np.minimum(ring.min(axis=0), grasp[:2]))
    high = np.ceil(np.maximum(ring.max(axis=0), grasp[:2])) + 1
    (left, top), (right, bottom) = (
        np.clip(point, 0, (width, height)).astype(int).tolist() for point in (low, high)
    )
    return slice(top, bottom), slice(left, right)


def _inside(grasp: np.ndarray, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
    """Which pixels of a box lie in a rectangle, or nearest to its center; and their squared distances from it."""
    x, y, angle, opening, jaws = grasp
    dx = np.arange(columns.start, columns.stop) - x
    dy = np.arange(rows.start, rows.stop)[:, None] - y
    along = dx * np.cos(angle) - dy * np.sin(angle)
    across = dx * np.sin(angle) + dy * np.cos(angle)
    inside = (np.abs(along) <= opening / 2 + _EDGE) & (np.abs(across) <= jaws / 2 + _EDGE)
    inside |= (np.abs(dx) <= 0.5) & (np.abs(dy) <= 0.5)
    return inside, dx * dx + dy * dy
