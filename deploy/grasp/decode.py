"""From the four maps of a grasp network to grasps: peaks of the quality, and what the other maps say there.

GG-CNN (Morrison et al., RSS 2018, arXiv:1804.05172) smooths all maps by Gaussians and reads them at the peaks of the
quality. Here the quality alone is smoothed everywhere; angle and width are averaged around each peak, by the same
Gaussians, but weighted by quality: where a network sees no grasp, its angle and width mean nothing.
"""

from collections.abc import Sequence

import numpy as np

from deploy.errors import UserError
from deploy.grasp.geometry import ANGLE, HEIGHT, WIDTH, X, Y, wrap_angle

MIN_DISTANCE = 10
"""Pixels between two grasps, along each axis."""
MIN_QUALITY = 0.1
SIGMA_QUALITY, SIGMA_ANGLE, SIGMA_WIDTH = 2.0, 2.0, 1.0
"""Pixels; those of GG-CNN."""
JAW = 0.5
"""Size of the jaws as a share of the opening, where nothing else is known, as in GG-CNN."""
_WIDE, _CLIMB, _LEVEL = 8.0, 32, 0.95
"""A peak may climb a Gaussian of 8 pixels, up to 32 steps, as long as the quality stays above that share of it."""
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
        valid: bool H×W: where a grasp may have its centre; default everywhere.
        count: how many grasps at most.
        min_distance: pixels; of two peaks that are nearer along both axes, the lower is left out.
        min_quality: 0..1, of the smoothed quality.
        jaw: height of the rectangles as a share of their width.

    Returns:
        Grasps float64 N×5 in pixels of the maps (see `deploy.grasp.geometry`), and their qualities float64 N in 0..1.
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
    quality = smoothed(maps[0], SIGMA_QUALITY)
    places = find_peaks(quality, valid, count, min_distance, min_quality)
    grasps = np.empty((len(places), 5))
    rows, columns = np.rint(places).astype(np.intp).T
    for grasp, row, column in zip(grasps, rows, columns, strict=True):
        cos, sin = (_around(maps[i], maps[0], row, column, SIGMA_ANGLE) for i in (1, 2))
        opening = _around(maps[3], maps[0], row, column, SIGMA_WIDTH) * min(quality.shape) / 2
        grasp[ANGLE:] = np.arctan2(sin, cos) / 2, opening, jaw * opening
    grasps[:, [Y, X]] = places
    grasps[:, ANGLE] = wrap_angle(grasps[:, ANGLE])
    return grasps, quality[rows, columns].astype(np.float64).clip(0, 1)


def smoothed(plane: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian of `sigma` pixels over float32 H×W, cut off at 4 σ; beyond the border the plane is mirrored.

    The same as `scipy.ndimage.gaussian_filter` to within rounding.
    """
    kernel = _kernel(sigma)
    return _along_rows(_along_rows(plane.astype(np.float32, copy=False), kernel).T, kernel).T


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
    tried: list[tuple[int, int]] = []
    found: list[tuple[float, float]] = []
    for place in candidates[order]:
        row, column = divmod(int(place), quality.shape[1])
        if len(found) == count:
            break
        if _near(row, column, tried, min_distance) or _near(row, column, found, min_distance):
            continue
        top, left = max(0, row - min_distance), max(0, column - min_distance)
        window = quality[top : row + min_distance + 1, left : column + min_distance + 1]
        if quality[row, column] >= window.max():
            tried.append((row, column))
            settled = _settled(quality, row, column)
            if not _near(*settled, found, min_distance):
                found.append(settled)
    return np.array(found, np.float64).reshape(-1, 2)


def to_image(grasps: np.ndarray, network_size: tuple[int, int], image_size: tuple[int, int]) -> np.ndarray:
    """Grasps N×5 in pixels of the network's (height, width) as pixels of the image's, which was resized to it.

    Where the two have other proportions, the opening keeps its place in the picture, and the jaws their length.
    """
    down, across = image_size[0] / network_size[0], image_size[1] / network_size[1]
    grasps = np.array(grasps, np.float64).reshape(-1, 5)
    cos, sin = np.cos(grasps[:, ANGLE]), np.sin(grasps[:, ANGLE])
    grasps[:, X] = (grasps[:, X] + 0.5) * across - 0.5
    grasps[:, Y] = (grasps[:, Y] + 0.5) * down - 0.5
    grasps[:, WIDTH] *= np.hypot(cos * across, sin * down)
    grasps[:, HEIGHT] *= np.hypot(sin * across, cos * down)
    grasps[:, ANGLE] = wrap_angle(np.arctan2(sin * down, cos * across))
    return grasps


def _kernel(sigma: float) -> np.ndarray:
    reach = int(4 * sigma + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return (kernel / kernel.sum()).astype(np.float32)


def _along_rows(plane: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """H×W with each column convolved by a symmetric kernel: whole rows are added, which lie together in memory."""
    reach = len(kernel) // 2
    padded = np.pad(plane, ((reach, reach), (0, 0)), mode="symmetric")
    height = plane.shape[0]
    result = padded[reach : reach + height] * kernel[reach]
    pair = np.empty_like(result)
    for offset in range(1, reach + 1):
        before = padded[reach - offset : reach - offset + height]
        np.add(before, padded[reach + offset : reach + offset + height], out=pair)
        pair *= kernel[reach + offset]
        result += pair
    return result


def _near(row: float, column: float, places: Sequence[tuple[float, float]], distance: int) -> bool:
    return any(max(abs(row - r), abs(column - c)) <= distance for r, c in places)


def _settled(quality: np.ndarray, row: int, column: int) -> tuple[float, float]:
    """A maximum, moved over ground that is as high to where most of it lies around, and there to parts of a pixel.

    "Around" is a Gaussian of `_WIDE` pixels, computed for the neighbourhood alone.
    """
    top, left = row - _CLIMB, column - _CLIMB
    wide = _wide(quality, top, left)
    floor = _LEVEL * quality[row, column]
    for _ in range(_CLIMB):
        r, c = row - top, column - left
        best = np.unravel_index(int(wide[r - 1 : r + 2, c - 1 : c + 2].argmax()), (3, 3))
        step = row + int(best[0]) - 1, column + int(best[1]) - 1
        inside = 0 <= step[0] < quality.shape[0] and 0 <= step[1] < quality.shape[1]
        if step == (row, column) or not inside or quality[step] < floor:
            break
        row, column = step
    r, c = row - top, column - left
    return row + _vertex(wide[r - 1 : r + 2, c]), column + _vertex(wide[r, c - 1 : c + 2])


def _wide(quality: np.ndarray, top: int, left: int) -> np.ndarray:
    """The wider Gaussian over the square of 2·_CLIMB + 3 pixels from one before (top, left); 0 outside the image."""
    reach = len(_WIDE_KERNEL) // 2
    side = 2 * _CLIMB + 3
    around = np.zeros((side + 2 * reach, side + 2 * reach), np.float32)
    rows, columns = (
        slice(max(0, start - 1 - reach), min(most, start - 1 + side + reach))
        for start, most in ((top, quality.shape[0]), (left, quality.shape[1]))
    )
    first = rows.start - (top - 1 - reach), columns.start - (left - 1 - reach)
    part = quality[rows, columns]
    around[first[0] : first[0] + part.shape[0], first[1] : first[1] + part.shape[1]] = part
    return (_WIDE_MATRIX @ around @ _WIDE_MATRIX.T)[1:, 1:]


def _vertex(three: np.ndarray) -> float:
    """Where a parabola through three neighbours has its top, from -½ to ½; 0 where the middle is not the highest."""
    before, middle, after = three.tolist() if len(three) == 3 else (0.0, 0.0, 0.0)
    bend = before - 2 * middle + after
    if bend >= 0 or middle < max(before, after):
        return 0.0
    return 0.5 * (before - after) / bend


def _local_maxima(score: np.ndarray, above: np.ndarray) -> np.ndarray:
    """Flat places of the pixels that are `above` and no lower than their four neighbours."""
    above = above.copy()
    above[1:] &= score[1:] >= score[:-1]
    above[:-1] &= score[:-1] >= score[1:]
    above[:, 1:] &= score[:, 1:] >= score[:, :-1]
    above[:, :-1] &= score[:, :-1] >= score[:, 1:]
    return np.flatnonzero(above)


def _around(plane: np.ndarray, quality: np.ndarray, row: int, column: int, sigma: float) -> float:
    """The mean of a map around a pixel, by a Gaussian times the quality."""
    kernel = _kernel(sigma)
    reach = len(kernel) // 2
    rows = slice(max(0, row - reach), row + reach + 1)
    columns = slice(max(0, column - reach), column + reach + 1)
    weight = np.clip(quality[rows, columns], 0, None) + np.float32(_LEAST)
    weight = weight * kernel[rows.start - row + reach :][: weight.shape[0], None]
    weight *= kernel[columns.start - column + reach :][: weight.shape[1]]
    return float((weight * plane[rows, columns]).sum(dtype=np.float64) / weight.sum(dtype=np.float64))


_WIDE_KERNEL = _kernel(_WIDE)
_WIDE_MATRIX = np.stack(
    [np.pad(_WIDE_KERNEL, (shift, 2 * _CLIMB + 2 - shift)) for shift in range(2 * _CLIMB + 3)]
)
"""What `_wide` multiplies by along either axis."""
