"""Labels of an image from scores at the stride of the network, with arithmetic only where classes meet.

A label is that of the scores resized bilinearly to the image (`deploy.scores.upsampling.upsample`). A resized score
lies between those of the four cells around a pixel, so where all four have the same label, the pixel has it, too. Only
the squares between cells of different labels are computed, and in them only classes that can be the highest. Rounding
cannot tell: cells whose decision is closer than the rounding error count as different, and squares are computed by the
same operations in the same order, so labels are equal to those of the resized scores, bit by bit.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from deploy.scores.upsampling import neighbors, softmax, upsample

ROUNDING = 16 * float(np.finfo(np.float32).eps)
"""Bounds the relative error of resizing a score, with room to spare."""
SOFTMAX_ROUNDING = 1e-6
"""Bounds the error of a probability by the softmax itself."""
LARGEST = 1e30
"""Differences of larger scores may overflow."""
_UNSURE = 255


class Axis(NamedTuple):
    """How the pixels of one axis lie in the intervals between cells, or between a cell and the edge of the image."""

    interval: np.ndarray
    """The interval of each pixel."""
    cells: np.ndarray
    """The cells before and behind each interval: those of interval i are at i and i + 1."""
    pixels: np.ndarray
    """pixels × intervals: the pixels of each interval; those of shorter ones are repeated."""
    weight: np.ndarray
    """float32, as `pixels`: the weight of the cell behind."""


def decide(scores: np.ndarray, threshold: float | None = None) -> np.ndarray:
    """The label of each pixel by its scores: the one definition, for scores of any shape behind the classes.

    Args:
        scores: float32 K×….
        threshold: for two classes, the probability from which a pixel is the second one; None: the highest score
            decides, and of equal ones the first. NaN is never the highest.

    Returns:
        uint8 ….
    """
    if threshold is not None:
        return (softmax(scores)[1] >= threshold).astype(np.uint8)
    # numpy's arg-max over the first axis takes two to three times as long
    best, labels = scores[0].copy(), np.zeros(scores.shape[1:], np.uint8)
    for label, plane in enumerate(scores[1:], start=1):
        labels[plane > best] = label
        np.maximum(best, plane, out=best)
    return labels


def labels_at(scores: np.ndarray, size: tuple[int, int], threshold: float | None = None) -> np.ndarray:
    """`decide(upsample(scores, size), threshold)`, computed where classes meet.

    Args:
        scores: float32 K×h×w.
        size: (height, width) of the labels.
        threshold: as in `decide`.

    Returns:
        uint8 height×width.
    """
    classes, height, width = scores.shape
    largest = max(float(scores.max()), -float(scores.min()))
    # comparisons are written so that NaN takes the first branch
    if not (largest < LARGEST) or classes >= _UNSURE or size[0] < 2 * height or size[1] < 2 * width:
        return decide(upsample(scores, size), threshold)
    rows, columns = _axis(height, size[0]), _axis(width, size[1])
    cells = _certain(scores, largest, threshold)
    around = cells.take(rows.cells, axis=0).take(columns.cells, axis=1)
    label = around[1:, 1:]
    mixed = (around[:-1, :-1] != label) | (around[:-1, 1:] != label) | (around[1:, :-1] != label)
    mixed |= label == _UNSURE
    labels = label.take(columns.interval, axis=1).take(rows.interval, axis=0)
    y, x = mixed.nonzero()
    if len(y):
        found = _squares(scores, (rows, columns), (y, x), ROUNDING * largest, threshold)
        where = (rows.pixels * size[1]).take(y, axis=1)[:, None] + columns.pixels.take(x, axis=1)
        labels.reshape(-1)[where] = found
    return labels


def _certain(scores: np.ndarray, largest: float, threshold: float | None) -> np.ndarray:
    """The labels of cells; `_UNSURE` where rounding could change them in a pixel beside the cell."""
    labels = decide(scores, threshold)
    if threshold is None:
        close = np.add.reduce(scores >= scores.max(axis=0) - ROUNDING * largest, axis=0, dtype=np.uint8) > 1
    else:  # a probability changes by at most a quarter of the change of the difference of scores
        close = np.abs(softmax(scores)[1] - threshold) <= SOFTMAX_ROUNDING + ROUNDING * largest
    labels[close] = _UNSURE
    return labels


def _squares(
    scores: np.ndarray,
    axes: tuple[Axis, Axis],
    at: tuple[np.ndarray, np.ndarray],
    rounding: float,
    threshold: float | None,
) -> np.ndarray:
    """The labels of the pixels in M squares of four cells, uint8 rows×columns×M; `at` are their intervals."""
    (rows, columns), (y, x) = axes, at
    width = scores.shape[2]
    above, below, left, right = (
        rows.cells[y] * width,
        rows.cells[y + 1] * width,
        columns.cells[x],
        columns.cells[x + 1],
    )
    corners = np.stack([above + left, above + right, below + left, below + right])
    weights = rows.weight.take(y, axis=1)[:, None], columns.weight.take(x, axis=1)
    if threshold is not None:
        both = [_resized(plane.reshape(-1).take(corners), *weights) for plane in scores]
        return decide(np.stack(both), threshold)
    return _highest(scores.reshape(len(scores), -1), corners, weights, rounding)


def _highest(
    scores: np.ndarray, corners: np.ndarray, weights: tuple[np.ndarray, np.ndarray], rounding: float
) -> np.ndarray:
    """The class of the highest score in squares: classes are compared one by one, in the order of their numbers.

    Args:
        scores: K×cells.
        corners: 4×M, the cells around each square.
        weights: of the cells below rows×1×M, and of the cells at the right columns×M.
        rounding: error of a score.
    """
    values = scores.take(corners, axis=1)  # K×4×M
    # a class that is in every corner below what another one has in its lowest corner never wins
    possible = values.max(axis=1) >= values.min(axis=1).max(axis=0) - rounding
    count = np.add.reduce(possible, axis=0, dtype=np.intp)
    order = np.argsort(
        -count, kind="stable"
    )  # squares with many classes first, so that each turn has a prefix
    count, corners = count[order], corners[:, order]
    candidates, begin = possible.T[order].nonzero()[1], np.cumsum(count) - count
    down, across = weights[0].take(order, axis=2), weights[1].take(order, axis=1)
    best = found = np.empty(0)
    for turn in range(count[0]):
        some = slice(0, np.count_nonzero(count > turn))
        label = candidates.take(begin[some] + turn)
        cells = scores.reshape(-1).take(corners[:, some] + label * scores.shape[1])
        score, label = _resized(cells, down[..., some], across[:, some]), label.astype(np.uint8)
        if turn == 0:
            best, found = score, np.broadcast_to(label, score.shape).copy()
            continue
        higher = (score > best[..., some]).view(np.uint8)
        np.maximum(found[..., some], higher * label, out=found[..., some])  # labels only rise
        np.maximum(best[..., some], score, out=best[..., some])
    result = np.empty_like(found)
    result[..., order] = found
    return result


def _resized(cells: np.ndarray, down: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Scores 4×M of the cells around squares, resized to rows×columns×M by the operations of `upsample`."""
    top_left, top_right, bottom_left, bottom_right = cells
    top = (top_right - top_left) * across
    top += top_left
    bottom = (bottom_right - bottom_left) * across
    bottom += bottom_left
    bottom -= top
    result = bottom * down
    result += top
    return result


@lru_cache(maxsize=32)
def _axis(cells: int, pixels: int) -> Axis:
    """The axis of `cells` that are resized to `pixels`."""
    first, _, weight = neighbors(cells, pixels)
    center = (np.arange(pixels) + 0.5) * cells / pixels - 0.5
    interval = np.where(center < 0, 0, first + 1)
    count = np.bincount(interval, minlength=cells + 1)
    begin = np.cumsum(count) - count
    last = begin + np.maximum(count, 1) - 1
    where = np.minimum(begin + np.arange(count.max())[:, None], last).clip(0, pixels - 1)
    around = np.arange(-1, cells + 1).clip(0, cells - 1)
    return Axis(interval, around, where, weight[where])
