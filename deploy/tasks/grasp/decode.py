"""Decode the four maps of a grasp network to grasps: peaks of the quality, and the other maps at these peaks.

GG-CNN (Morrison et al., RSS 2018, arXiv:1804.05172) smooths all maps with Gaussians and reads them at the peaks of the
quality. Here only the quality is smoothed everywhere. Angle and width are averaged around each peak with the same
Gaussians, but weighted by quality, because they are meaningless where the network predicts no grasp.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from deploy.errors import UserError
from deploy.tasks.grasp.geometry import ANGLE, HEIGHT, WIDTH, X, Y, wrap_angle

MIN_DISTANCE = 10
"""Smallest distance between two grasps in pixels, along at least one axis."""
MIN_QUALITY = 0.1
SIGMA_QUALITY, SIGMA_ANGLE, SIGMA_WIDTH = 2.0, 2.0, 1.0
"""Pixels; as in GG-CNN."""
CUT = 3.0
"""Radius at which Gaussians are truncated, in standard deviations."""
JAW = 0.5
"""Default size of the jaws as a fraction of the opening, as in GG-CNN."""
_WIDE, _MOVE, _LEVEL = 8.0, 24, 0.95
"""A peak may move to the maximum of the quality smoothed by a Gaussian of 8 pixels, up to 24 pixels along either axis,
over pixels with at least that fraction of its quality."""
_LEAST = 1e-6


def decode(
    maps: np.ndarray,
    *,
    valid: np.ndarray | None = None,
    count: int = 1,
    min_distance: int = MIN_DISTANCE,
    min_quality: float = MIN_QUALITY,
    jaw: float = JAW,
) -> tuple[np.ndarray, np.ndarray]:
    """Decode the best grasps of an image, the best first.

    Args:
        maps: floating point 4×H×W: quality in 0..1, cos 2θ, sin 2θ, and opening / (½ · min(H, W)).
        valid: bool H×W: where the center of a grasp may be; default: everywhere.
        count: maximum number of grasps.
        min_distance: pixels; of two peaks that are closer along both axes, the lower is dropped.
        min_quality: threshold on the smoothed quality, in 0..1.
        jaw: height of the rectangles as a fraction of their width.

    Returns:
        Grasps float64 N×5 in pixels of the maps (see `deploy.tasks.grasp.geometry`), and their qualities float64 N in
        0..1. N is 0 if no quality is high enough.

    Raises:
        UserError: the maps have another shape, or a value that is not finite.
    """
    if maps.ndim != 3 or maps.shape[0] != 4:
        raise UserError(f"grasp maps are 4×H×W, these have shape {maps.shape}")
    if not np.isfinite(maps).all():
        raise UserError("a grasp map has values that are not finite; check the network and its input")
    rows, columns = _worth_a_look(maps[0], min_quality)
    unit = min(maps.shape[1:]) / 2
    maps, valid = maps[:, rows, columns], None if valid is None else valid[rows, columns]
    if maps.size == 0:
        return np.zeros((0, 5)), np.zeros(0)
    quality = smoothed(maps[0], SIGMA_QUALITY)
    places = find_peaks(quality, valid, count, min_distance, min_quality)
    nearest = np.rint(places).astype(np.intp)
    cos, sin = _around(maps[1:3], maps[0], nearest, SIGMA_ANGLE)
    (opening,) = _around(maps[3:], maps[0], nearest, SIGMA_WIDTH) * unit
    y, x = places[:, 0] + rows.start, places[:, 1] + columns.start
    grasps = np.stack([x, y, wrap_angle(np.arctan2(sin, cos) / 2), opening, jaw * opening], axis=1)
    return grasps, quality[tuple(nearest.T)].astype(np.float64).clip(0, 1)


def smoothed(plane: np.ndarray, sigma: float) -> np.ndarray:
    """Smooth float32 H×W with a Gaussian of `sigma` pixels, truncated at 3 σ; the plane is mirrored at its borders.

    Equal to `scipy.ndimage.gaussian_filter(truncate=3)` up to rounding.
    """
    kernel = _kernel(sigma)
    wide = _along_rows(plane.astype(np.float32, copy=False), kernel)
    return np.ascontiguousarray(_along_rows(np.ascontiguousarray(wide.T), kernel).T)


def find_peaks(
    quality: np.ndarray, valid: np.ndarray | None, count: int, min_distance: int, min_quality: float
) -> np.ndarray:
    """Find the highest local maxima of a map.

    A maximum is above `min_quality` and not lower than any pixel within `min_distance` along both axes. If the quality
    is flat, as along an object that can be grasped anywhere, the maximum moves to the middle (see `_settled`).

    Args:
        quality: float H×W.
        valid: bool H×W, where a maximum may be; None = everywhere.
        count: maximum number of maxima.
        min_distance: in pixels.
        min_quality: in 0..1.

    Returns:
        Positions float64 M×2 (row, column), the highest first.
    """
    above = quality > min_quality
    if valid is not None:
        above &= valid
    candidates = _local_maxima(quality, above)
    order = np.argsort(-quality.reshape(-1)[candidates], kind="stable")
    taken = np.zeros(quality.shape, bool)
    found: list[tuple[float, float]] = []
    for place in candidates[order].tolist():
        row, column = divmod(place, quality.shape[1])
        if len(found) == count:
            break
        if taken[row, column]:
            continue
        window = _square(row, column, min_distance)
        if quality[row, column] >= quality[window].max():
            settled = _settled(quality, row, column)
            taken[window] = taken[_square(round(settled[0]), round(settled[1]), min_distance)] = True
            if not _near(*settled, found, min_distance):
                found.append(settled)
    return np.array(found, np.float64).reshape(-1, 2)


def to_image(grasps: np.ndarray, network_size: tuple[int, int], image_size: tuple[int, int]) -> np.ndarray:
    """Convert grasps from pixels of the network input to pixels of the image that was resized to it.

    If the aspect ratios differ, the ends of the opening stay at the same place in the image, and the rectangle keeps
    its fraction of the area; so swapping the sizes gives the inverse.

    Args:
        grasps: N×5 in pixels of the network input.
        network_size: height and width.
        image_size: height and width.
    """
    down, across = image_size[0] / network_size[0], image_size[1] / network_size[1]
    grasps = np.array(grasps, np.float64).reshape(-1, 5)
    cos, sin = np.cos(grasps[:, ANGLE]), np.sin(grasps[:, ANGLE])
    grasps[:, X] = (grasps[:, X] + 0.5) * across - 0.5
    grasps[:, Y] = (grasps[:, Y] + 0.5) * down - 0.5
    stretch = np.hypot(cos * across, sin * down)
    grasps[:, WIDTH] *= stretch
    grasps[:, HEIGHT] *= across * down / stretch
    grasps[:, ANGLE] = wrap_angle(np.arctan2(sin * down, cos * across))
    return grasps


@lru_cache(maxsize=8)
def _kernel(sigma: float) -> np.ndarray:
    reach = int(CUT * sigma + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return (kernel / kernel.sum()).astype(np.float32)


def _along_rows(plane: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolve each column of H×W with a symmetric kernel, as products of the kernel with uncopied bands of rows."""
    padded = plane[_mirrored(len(plane), len(kernel) // 2)]
    windows = np.lib.stride_tricks.sliding_window_view(padded, len(kernel), axis=0)
    return np.matmul(kernel, windows.swapaxes(-1, -2))


@lru_cache(maxsize=32)
def _mirrored(length: int, reach: int) -> np.ndarray:
    """The indices 0..length-1, padded on either side with `reach` mirrored ones."""
    return np.pad(np.arange(length), reach, mode="symmetric")


def _worth_a_look(quality: np.ndarray, least: float) -> tuple[slice, slice]:
    """Rows and columns outside of which no smoothed quality can exceed `least`, because no quality does."""
    above = quality > least
    reach = 2 * int(CUT * SIGMA_QUALITY + 0.5)
    spans = []
    for axis in (1, 0):
        found = np.flatnonzero(above.any(axis=axis))
        first, last = (int(found[0]), int(found[-1])) if found.size else (0, -1 - reach)
        spans.append(slice(max(0, first - reach), max(0, last + 1 + reach)))
    return spans[0], spans[1]


def _square(row: int, column: int, reach: int) -> tuple[slice, slice]:
    return (
        slice(max(0, row - reach), max(0, row + reach + 1)),
        slice(max(0, column - reach), max(0, column + reach + 1)),
    )


def _near(row: float, column: float, places: Sequence[tuple[float, float]], distance: int) -> bool:
    return any(max(abs(row - r), abs(column - c)) <= distance for r, c in places)


def _settled(quality: np.ndarray, row: int, column: int) -> tuple[float, float]:
    """Move a maximum over almost equally high pixels to the middle of their region, with subpixel precision.

    The middle is the maximum of the quality smoothed by a Gaussian of `_WIDE` pixels, which is computed only for the
    neighborhood. The maximum moves only if all pixels on the straight line are high: on a bent object the line leaves
    the object.
    """
    wide = _wide(quality, row, column)
    floor = _LEVEL * quality[row, column]
    rows, columns = _square(row, column, _MOVE)
    high = quality[rows, columns] >= floor
    top, left = rows.start - (row - _MOVE - 1), columns.start - (column - _MOVE - 1)
    inner = wide[top : top + high.shape[0], left : left + high.shape[1]]
    place = divmod(int((high * inner).argmax()), high.shape[1])
    down, across = rows.start + place[0] - row, columns.start + place[1] - column
    way = np.rint(np.outer((down, across), _WAY)).astype(np.intp)
    if not (quality[row + way[0], column + way[1]] >= floor).all():
        down = across = 0
    r, c = down + _MOVE + 1, across + _MOVE + 1
    vertical, horizontal = wide[r - 1 : r + 2, c].tolist(), wide[r, c - 1 : c + 2].tolist()
    return row + down + _vertex(*vertical), column + across + _vertex(*horizontal)


def _wide(quality: np.ndarray, row: int, column: int) -> np.ndarray:
    """The quality smoothed by the wide Gaussian within ±(_MOVE + 1) pixels of a position; 0 outside the image."""
    reach = len(_WIDE_KERNEL) // 2 + _MOVE + 1
    around = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    rows, columns = _square(row, column, reach)
    part = quality[rows, columns]
    top, left = rows.start - (row - reach), columns.start - (column - reach)
    around[top : top + part.shape[0], left : left + part.shape[1]] = part
    return _WIDE_MATRIX @ around @ _WIDE_MATRIX.T


def _vertex(before: float, middle: float, after: float) -> float:
    """Position in -½..½ of the maximum of a parabola through three neighbors; 0 if the middle is not the highest."""
    bend = before - 2 * middle + after
    if bend >= 0 or middle < max(before, after):
        return 0.0
    return 0.5 * (before - after) / bend


def _local_maxima(score: np.ndarray, above: np.ndarray) -> np.ndarray:
    """Flat indices of the pixels that are `above` and not lower than their four neighbors."""
    above = above.copy()
    above[1:] &= score[1:] >= score[:-1]
    above[:-1] &= score[:-1] >= score[1:]
    above[:, 1:] &= score[:, 1:] >= score[:, :-1]
    above[:, :-1] &= score[:, :-1] >= score[:, 1:]
    return np.flatnonzero(above)


def _around(planes: np.ndarray, quality: np.ndarray, places: np.ndarray, sigma: float) -> np.ndarray:
    """The mean of each map P×H×W around each pixel N×2, weighted by a Gaussian times the quality: float64 P×N."""
    kernel = _kernel(sigma)
    reach = len(kernel) // 2
    at = places[:, :, None] + np.arange(-reach, reach + 1)  # N×2×taps
    inside = (at >= 0) & (at < np.array(quality.shape)[:, None])
    weights = np.where(inside, kernel, 0)
    rows, columns = np.where(inside, at, 0).transpose(1, 0, 2)
    pixels = rows[:, :, None], columns[:, None, :]
    weight = (
        (np.clip(quality[pixels], 0, None) + np.float32(_LEAST))
        * weights[:, 0, :, None]
        * weights[:, 1, None]
    )
    total = weight.sum(axis=(1, 2), dtype=np.float64)
    return (planes[(slice(None), *pixels)] * weight).sum(axis=(2, 3), dtype=np.float64) / total


_WIDE_KERNEL = _kernel(_WIDE)
_WIDE_MATRIX = np.stack(
    [np.pad(_WIDE_KERNEL, (shift, 2 * _MOVE + 2 - shift)) for shift in range(2 * _MOVE + 3)]
)
"""Matrix with which `_wide` multiplies along either axis."""
_WAY = np.linspace(0, 1, 9)
