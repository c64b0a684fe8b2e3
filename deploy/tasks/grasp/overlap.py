"""Intersection over union of oriented rectangles."""

import numpy as np

from deploy.tasks.grasp.geometry import HEIGHT, WIDTH, corners

_SHARE = 1e-12


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of the rectangles of grasps N×5 and M×5: float64 N×M in 0..1; 0 if both have no area.

    Rectangle b is clipped by the four sides of a in turn (Sutherland & Hodgman, CACM 17, 1974), for all pairs at once.
    """
    a, b = (np.asarray(one, np.float64).reshape(-1, 5) for one in (a, b))
    first, second = (one[:, WIDTH] * one[:, HEIGHT] for one in (a, b))
    if len(a) == 0 or len(b) == 0:
        return np.zeros((len(a), len(b)))
    # relative to the center of a, as small numbers are more precise
    middle = corners(a).mean(axis=1)[:, None, None]
    ring_a = np.broadcast_to(corners(a)[:, None] - middle, (len(a), len(b), 4, 2)).reshape(-1, 4, 2)
    ring_b = np.broadcast_to(corners(b)[None] - middle, (len(a), len(b), 4, 2)).reshape(-1, 4, 2)
    polygon, used = ring_b, np.full(len(ring_b), 4)
    for side in range(4):
        polygon, used = _clip(polygon, used, ring_a[:, side], ring_a[:, (side + 1) % 4])
    shared = _area(polygon, used).reshape(len(a), len(b))
    union = first[:, None] + second[None] - shared
    scale = np.maximum(first[:, None], second[None])
    result = np.divide(shared, union, out=np.zeros_like(union), where=union > _SHARE * scale)
    return result.clip(0, 1)


def _clip(
    polygon: np.ndarray, used: np.ndarray, start: np.ndarray, end: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The part of each polygon P×V×2 (its first `used` corners) on the inner side of the line from start to end P×2."""
    count, most = polygon.shape[:2]
    index = np.arange(most)
    following = np.where(index + 1 < used[:, None], index + 1, 0)
    after = np.take_along_axis(polygon, following[..., None], axis=1)
    direction = (end - start)[:, None]
    here, there = (_cross(direction, points - start[:, None]) for points in (polygon, after))
    exists = index < used[:, None]
    stays = exists & (here >= 0)
    crosses = exists & ((here >= 0) != (there >= 0))
    span = here - there
    share = np.divide(here, span, out=np.zeros_like(here), where=crosses & (span != 0))
    points = np.stack([polygon, polygon + share[..., None] * (after - polygon)], axis=2)
    keep = np.stack([stays, crosses], axis=2)
    points, keep = points.reshape(count, 2 * most, 2), keep.reshape(count, 2 * most)
    # a line adds at most one corner to a convex polygon
    order = np.argsort(~keep, axis=1, kind="stable")[:, : most + 1]
    return np.take_along_axis(points, order[..., None], axis=1), keep.sum(axis=1)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _area(polygon: np.ndarray, used: np.ndarray) -> np.ndarray:
    """The area of each polygon P×V×2, of which the first `used` corners count."""
    index = np.arange(polygon.shape[1])
    following = np.where(index + 1 < used[:, None], index + 1, 0)
    after = np.take_along_axis(polygon, following[..., None], axis=1)
    return np.abs(np.where(index < used[:, None], _cross(polygon, after), 0).sum(axis=1)) / 2
