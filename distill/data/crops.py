"""Which part of an image becomes a training crop: at random, with a class in it, with enough pixels that count.

Every random number comes from the generator passed in.
"""

import math

import numpy as np

from distill.config import AugmentConfig
from distill.data.sample import Sample

TRIES = 10
"""Windows that are drawn at most for one crop."""

Window = tuple[int, int, int, int]
"""Top, left, height, width in pixels; may reach beyond the image."""

Area = tuple[slice, slice]
"""Rows and columns."""


def choose_window(
    sample: Sample, config: AugmentConfig, rng: np.random.Generator, wanted: int | None = None
) -> Window:
    """The part of an image that a random zoom brings to the size of the crop.

    Where the image has the class `wanted`, one of its pixels, drawn evenly, lies in the window. Windows of which more
    than `config.max_no_data` does not count are drawn anew, zoom and place; of `TRIES` such the best is taken.
    """
    best, fewest = None, math.inf
    for _ in range(TRIES):
        window = _draw(sample.label.numpy(), config, rng, wanted)
        if config.max_no_data >= 1:
            return window
        share = _not_counting(sample.valid.numpy(), window)
        if share <= config.max_no_data:
            return window
        if share < fewest:
            best, fewest = window, share
    assert best is not None
    return best


def _draw(label: np.ndarray, config: AugmentConfig, rng: np.random.Generator, wanted: int | None) -> Window:
    height, width = label.shape
    row = column = None
    if wanted is not None and len(places := np.flatnonzero(label == wanted)):
        row, column = divmod(int(places[rng.integers(len(places))]), width)
    # Uniform in the logarithm, so that halving is as likely as doubling.
    zoom = float(np.exp(rng.uniform(np.log(config.scale[0]), np.log(config.scale[1]))))
    tall, wide = (max(1, round(side / zoom)) for side in config.crop)
    return _offset(height, tall, row, rng), _offset(width, wide, column, rng), tall, wide


def _offset(available: int, extent: int, point: int | None, rng: np.random.Generator) -> int:
    """A random start such that the window lies in the image, or the image in the window, and `point` in both."""
    spare = available - extent
    first, last = min(spare, 0), max(spare, 0)
    if point is not None:
        first, last = max(first, point - extent + 1), min(last, point)
    return int(rng.integers(first, last + 1))


def _not_counting(valid: np.ndarray, window: Window) -> float:
    """Share of the window that is not valid or outside the image."""
    top, left, tall, wide = window
    inside = valid[max(top, 0) : top + tall, max(left, 0) : left + wide]
    return 1 - np.count_nonzero(inside) / (tall * wide)


def cut(height: int, width: int, window: Window, crop: tuple[int, int]) -> tuple[Area, Area]:
    """The part of the window that lies in the image, and the area that it fills of the crop."""
    top, left, tall, wide = window
    rows, down = _cut_axis(height, top, tall, crop[0])
    columns, across = _cut_axis(width, left, wide, crop[1])
    return (rows, columns), (down, across)


def _cut_axis(available: int, start: int, extent: int, crop: int) -> tuple[slice, slice]:
    first, last = max(start, 0), min(start + extent, available)
    size = max(1, round((last - first) * crop / extent))
    at = min(round((first - start) * crop / extent), crop - size)
    return slice(first, last), slice(at, at + size)
