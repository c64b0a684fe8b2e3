"""Sliding-window prediction for images larger than the network input.

Where windows overlap, their scores are averaged with a tent weight: a window counts most near its center, because near
its border the network sees only half of a pixel's surroundings. Windows form a grid, so a weight is the product of one
per axis, each normalized to sum to one; a pixel in a single window keeps its exact score.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from deploy.errors import UserError
from deploy.scores.upsampling import upsample

Run = Callable[[np.ndarray], np.ndarray]
"""The network: windows N×h×w×C → scores N×K×h'×w', where h'×w' may be smaller than h×w (the network's stride)."""


def windows(
    height: int, width: int, window: tuple[int, int], overlap: float = 0.5
) -> list[tuple[slice, slice]]:
    """Place windows that together cover a whole image.

    The last window on each axis is shifted back to end at the border. On an axis shorter than the window there is one
    window, which extends past the border.

    Args:
        height: height of the image.
        width: width of the image.
        window: (h, w) of every window, in pixels.
        overlap: fraction of a window shared with the next one, in [0, 1).

    Returns:
        Rows and columns of every window, in row-major order.

    Raises:
        UserError: `overlap` is out of range.
    """
    rows, columns = _starts(height, window[0], overlap), _starts(width, window[1], overlap)
    return [(slice(y, y + window[0]), slice(x, x + window[1])) for y in rows for x in columns]


def predict_tiled(
    run: Run,
    image: np.ndarray,
    window: tuple[int, int],
    overlap: float = 0.5,
    fill: float | Sequence[float] | np.ndarray = 0.0,
    batch_size: int = 1,
) -> np.ndarray:
    """Predict an image of any size through a sliding window. If K×H×W does not fit in memory, use `predict_strips`.

    Args:
        run: the network.
        image: H×W×C of any dtype.
        window: (h, w) of the network's input, in pixels.
        overlap: fraction of a window shared with the next one, in [0, 1).
        fill: value, or one per channel, that pads an image smaller than the window, below and to the right.
        batch_size: number of windows per call of `run`.

    Returns:
        Scores float32 K×H×W.

    Raises:
        UserError: `overlap` is out of range.
    """
    strips = predict_strips(run, image, window, overlap, fill, batch_size)
    return np.concatenate([scores for _, scores in strips], axis=1)


def predict_strips(
    run: Run,
    image: np.ndarray,
    window: tuple[int, int],
    overlap: float = 0.5,
    fill: float | Sequence[float] | np.ndarray = 0.0,
    batch_size: int = 1,
) -> Iterator[tuple[slice, np.ndarray]]:
    """Like `predict_tiled`, but from top to bottom, with the memory of one row of windows for any height of the image.

    Yields:
        Rows of the image, and their finished scores float32 K×rows×W.
    """
    height, width = image.shape[:2]
    padded = _pad(image, window, fill)
    starts = _starts(padded.shape[0], window[0], overlap)
    weights = _weights(starts, padded.shape[0], window[0])
    unfinished = None
    for (top, following), weight in zip(pairwise([*starts, padded.shape[0]]), weights, strict=True):
        band = _predict_band(run, padded[top : top + window[0]], window, overlap, batch_size)
        band *= weight[:, None]
        if unfinished is not None:
            band[:, : unfinished.shape[1]] += unfinished
        finished = min(following, height) - top
        yield slice(top, top + finished), band[:, :finished, :width]
        unfinished = band[:, finished:]


def _predict_band(
    run: Run, band: np.ndarray, window: tuple[int, int], overlap: float, batch_size: int
) -> np.ndarray:
    """Scores K×h×W of one row of windows; `band` is h×W×C, where h is the height of the window."""
    width = band.shape[1]
    starts = _starts(width, window[1], overlap)
    weights = _weights(starts, width, window[1])
    total = None
    for first in range(0, len(starts), batch_size):
        chunk = slice(first, first + batch_size)
        batch = np.stack([band[:, x : x + window[1]] for x in starts[chunk]])
        for x, weight, scores in zip(starts[chunk], weights[chunk], run(batch), strict=True):
            if total is None:
                total = np.zeros((len(scores), window[0], width), np.float32)
            total[:, :, x : x + window[1]] += upsample(scores, window) * weight
    assert total is not None  # an axis always has at least one window
    return total


def _starts(length: int, window: int, overlap: float) -> list[int]:
    """Start positions of the windows along one axis, ascending and without duplicates."""
    if not 0 <= overlap < 1:
        raise UserError(
            f"overlap of the sliding window is {overlap}: choose a fraction in [0, 1), for example 0.5"
        )
    stride = max(1, round(window * (1 - overlap)))
    last = max(0, length - window)
    return [*range(0, last, stride), last]


def _weights(starts: list[int], length: int, window: int) -> list[np.ndarray]:
    """The tent weight of each window along one axis, float32 of `window` values; over all windows they sum to one."""
    ramp = np.arange(1, window + 1)
    tent = np.minimum(ramp, ramp[::-1]).astype(np.float64)  # never 0: every pixel has a weight
    total = np.zeros(length)
    for start in starts:
        total[start : start + window] += tent
    return [(tent / total[start : start + window]).astype(np.float32) for start in starts]


def _pad(
    image: np.ndarray, window: tuple[int, int], fill: float | Sequence[float] | np.ndarray
) -> np.ndarray:
    """The image H×W×C, padded with `fill` below and to the right to at least the window."""
    height, width, channels = image.shape
    if height >= window[0] and width >= window[1]:
        return image
    padded = np.empty((max(height, window[0]), max(width, window[1]), channels), image.dtype)
    padded[:] = np.asarray(fill).astype(image.dtype)
    padded[:height, :width] = image
    return padded
