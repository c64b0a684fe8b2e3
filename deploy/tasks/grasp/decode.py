"""From the four maps of a grasp network to grasps: peaks of the quality, and what the other maps say there.

GG-CNN (Morrison et al., RSS 2018, arXiv:1804.05172) smooths all maps by Gaussians and reads them at the peaks of the
quality. Here the quality alone is smoothed everywhere; angle and width are averaged around each peak, by the same
Gaussians, but weighted by quality: where a network sees no grasp, its angle and width mean nothing.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from deploy.errors import UserError
from deploy.tasks.grasp.geometry import ANGLE, HEIGHT, WIDTH, X, Y, wrap_angle

MIN_DISTANCE = 10
"""Pixels between two grasps, along each axis."""
MIN_QUALITY = 0.1
SIGMA_QUALITY, SIGMA_ANGLE, SIGMA_WIDTH = 2.0, 2.0, 1.0
"""Pixels; those of GG-CNN."""
CUT = 3.0
"""Standard deviations at which a Gaussian ends."""
JAW = 0.5
"""Size of the jaws as a share of the opening, where nothing else is known, as in GG-CNN."""
_WIDE, _MOVE, _LEVEL = 8.0, 24, 0.95
"""A peak may move to the top of a Gaussian of 8 pixels, up to 24 pixels along either axis, over ground that has at
least that share of its quality."""
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
    """The best grasps of an image, the best first.

    Args:
        maps: floating 4×H×W: quality in 0..1, cos 2θ, sin 2θ, and opening / (½ · min(H, W)).
        valid: bool H×W: where a grasp may have its center; default everywhere.
        count: how many grasps at most.
        min_distance: pixels; of two peaks that are nearer along both axes, the lower is left out.
        min_quality: 0..1, of the smoothed quality.
        jaw: height of the rectangles as a share of their width.

    Returns:
        Grasps float64 N×5 in pixels of the maps (see `deploy.tasks.grasp.geometry`), and their qualities float64 N in 0..1.
        N is 0 where no quality is high enough.

    Raises:
        UserError: the maps have another shape, or hold a number that is not finite.
    """
    if maps.ndim != 3 or maps.shape[0] != 4:
        raise UserError(f"grasp maps are 4×H×W, these have shape {maps.shape}")
    if not np.isfinite(maps).all():
        raise UserError(
            "a grasp map holds numbers that are not finite; the network is damaged, or its input is"
        )
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
    """A Gaussian of `sigma` pixels over float32 H×W, cut off at 3 σ; beyond the border the plane is mirrored.

    The same as `scipy.ndimage.gaussian_filter(truncate=3)` to within rounding.
    """
    kernel = _kernel(sigma)
    wide = _along_rows(plane.astype(np.float32, copy=False), kernel)
    return np.ascontiguousarray(_along_rows(np.ascontiguousarray(wide.T), kernel).T)


def find_peaks(
    quality: np.ndarray, valid: np.ndarray | None, count: int, min_distance: int, min_quality: float
) -> np.ndarray:
    """The places M×2 (row, column) of the highest local maxima of `quality` H×W, falling, at most `count`.

    A maximum is above `min_quality` and no lower than any pixel within `min_distance` along both axes. Where the
    quality is flat, as along an object that can be grasped anywhere, the place is the middle (see `_settled`).
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
    """Grasps N×5 in pixels of the network's (height, width) as pixels of the image's, which was resized to it.

    Where the two have other proportions, the opening keeps its place in the picture, and the rectangle its share of the
    area: so the same function leads back.
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
    """H×W with each column convolved by a symmetric kernel: its product with each band of rows, none of them copied."""
    padded = plane[_mirrored(len(plane), len(kernel) // 2)]
    return np.matmul(kernel, np.lib.stride_tricks.sliding_window_view(padded, len(kernel), axis=0).mT)


@lru_cache(maxsize=32)
def _mirrored(length: int, reach: int) -> np.ndarray:
    """The indices 0..length-1, and `reach` more on either side that mirror them."""
    return np.pad(np.arange(length), reach, mode="symmetric")


def _worth_a_look(quality: np.ndarray, least: float) -> tuple[slice, slice]:
    """Rows and columns outside of which no smoothed quality is above `least`, as none is before smoothing."""
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
    """A maximum, moved over ground that is as high to where most of it lies around, and there to parts of a pixel.

    "Around" is a Gaussian of `_WIDE` pixels, computed for the neighbourhood alone. It goes straight or not at all: on
    a bent object the straight way leads off it.
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
    """The wider Gaussian over the square of ±(_MOVE + 1) pixels around a place; the quality is 0 outside the image."""
    reach = len(_WIDE_KERNEL) // 2 + _MOVE + 1
    around = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    rows, columns = _square(row, column, reach)
    part = quality[rows, columns]
    top, left = rows.start - (row - reach), columns.start - (column - reach)
    around[top : top + part.shape[0], left : left + part.shape[1]] = part
    return _WIDE_MATRIX @ around @ _WIDE_MATRIX.T


def _vertex(before: float, middle: float, after: float) -> float:
    """Where a parabola through three neighbors has its top, from -½ to ½; 0 where the middle is not the highest."""
    bend = before - 2 * middle + after
    if bend >= 0 or middle < max(before, after):
        return 0.0
    return 0.5 * (before - after) / bend


def _local_maxima(score: np.ndarray, above: np.ndarray) -> np.ndarray:
    """Flat places of the pixels that are `above` and no lower than their four neighbors."""
    above = above.copy()
    above[1:] &= score[1:] >= score[:-1]
    above[:-1] &= score[:-1] >= score[1:]
    above[:, 1:] &= score[:, 1:] >= score[:, :-1]
    above[:, :-1] &= score[:, :-1] >= score[:, 1:]
    return np.flatnonzero(above)


def _around(planes: np.ndarray, quality: np.ndarray, places: np.ndarray, sigma: float) -> np.ndarray:
    """The mean of each map P×H×W around each of the pixels N×2, by a Gaussian times the quality: float64 P×N."""
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
    return (planes[:, *pixels] * weight).sum(axis=(2, 3), dtype=np.float64) / total


_WIDE_KERNEL = _kernel(_WIDE)
_WIDE_MATRIX = np.stack(
    [np.pad(_WIDE_KERNEL, (shift, 2 * _MOVE + 2 - shift)) for shift in range(2 * _MOVE + 3)]
)
"""What `_wide` multiplies by along either axis."""
_WAY = np.linspace(0, 1, 9)
