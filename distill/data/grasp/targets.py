"""Target maps of a grasp network: quality, angle and width, drawn from the grasps of an image."""

import numpy as np

from deploy.tasks.grasp.geometry import MAPS, corners

CENTER_SHARE = 1 / 3
"""Share of the opening, around the center, where a grasp is drawn."""

_EDGE = 1e-6
"""Pixels by which a rectangle is widened, so that pixel centers on its edges count on both sides at any angle."""


def encode(grasps: np.ndarray, height: int, width: int, unit: float | None = None) -> np.ndarray:
    """Draw grasps as maps of quality, cos 2θ, sin 2θ and width.

    A pixel belongs to a grasp if its center lies in the middle third of the rectangle's opening, over the full height
    of the jaws (GG-CNN, Morrison et al., RSS 2018, arXiv:1804.05172), or if it is the pixel nearest to the grasp's
    center. Its quality is 1, and its width is the opening as a share of half the shorter side of the image, at most 1:
    in GG-CNN's 300×300 images that is width / 150.

    Where grasps overlap, a pixel takes angle and width from the grasp with the nearest center, the first among equals.
    So the order of the grasps does not matter, and each can be read at its own center; in GG-CNN the last grasp of a
    file covers the others. Parts outside the image are clipped. The centroid of a grasp's pixels is its center to
    within a pixel, unless its jaws are wider than its opening.

    Args:
        grasps: N×5 in pixels.
        height: height of the maps.
        width: width of the maps.
        unit: the opening whose value is 1, in pixels; None: half the shorter side. Crops take that of the network, by
            which a device decodes.

    Returns:
        float32 4×H×W; 0 where there is no grasp, cos 2θ as well, where GG-CNN's code has 1 (the angle 0). The losses'
        option `outside=1` trains on that.
    """
    maps = np.zeros((len(MAPS), height, width), np.float32)
    distance = np.full((height, width), np.inf, np.float32)
    drawn = np.array(grasps, np.float64).reshape(-1, 5)
    values = _values(drawn, min(height, width) / 2 if unit is None else unit)
    drawn[:, 3] *= CENTER_SHARE
    for grasp, ring, value in zip(drawn, corners(drawn), values, strict=True):
        rows, columns = _box(ring, grasp, height, width)
        inside, squared = _inside(grasp, rows, columns)
        nearest = distance[rows, columns]
        wins = inside & (squared < nearest)
        nearest[wins] = squared[wins]
        maps[:, rows, columns][:, wins] = value[:, None]
    return maps


def _values(grasps: np.ndarray, unit: float) -> np.ndarray:
    """Values of the four maps inside each grasp: N×4."""
    angle, opening = grasps[:, 2], grasps[:, 3]
    return np.column_stack(
        [np.ones(len(grasps)), np.cos(2 * angle), np.sin(2 * angle), np.minimum(opening / unit, 1)]
    )


def _box(ring: np.ndarray, grasp: np.ndarray, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns that contain the rectangle `ring` (4×2) and the pixel nearest to its center."""
    low = np.floor(np.minimum(ring.min(axis=0), grasp[:2]))
    high = np.ceil(np.maximum(ring.max(axis=0), grasp[:2])) + 1
    (left, top), (right, bottom) = (
        np.clip(point, 0, (width, height)).astype(int).tolist() for point in (low, high)
    )
    return slice(top, bottom), slice(left, right)


def _inside(grasp: np.ndarray, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
    """Which pixels of a box lie in a grasp or nearest to its center, and their squared distances from that center."""
    x, y, angle, opening, jaws = grasp
    dx = np.arange(columns.start, columns.stop) - x
    dy = np.arange(rows.start, rows.stop)[:, None] - y
    along = dx * np.cos(angle) - dy * np.sin(angle)
    across = dx * np.sin(angle) + dy * np.cos(angle)
    inside = (np.abs(along) <= opening / 2 + _EDGE) & (np.abs(across) <= jaws / 2 + _EDGE)
    inside |= (np.abs(dx) <= 0.5) & (np.abs(dy) <= 0.5)
    return inside, dx * dx + dy * dy
