"""Choose the window of an image that becomes a training crop: random, around a class, or with enough valid pixels.

Every random number comes from the generator passed in.
"""

import math

import numpy as np

from distill.config import AugmentConfig
from distill.data.sample import Sample

TRIES = 10
"""Largest number of windows drawn for one crop."""

Window = tuple[int, int, int, int]
"""Top, left, height, width in pixels; it may extend beyond the image."""

Area = tuple[slice, slice]
"""Rows and columns."""


def choose_window(
    sample: Sample, config: AugmentConfig, rng: np.random.Generator, target_class: int | None = None
) -> Window:
    """Draw the window of an image that a random zoom scales to the size of the crop.

    Zoom and position are drawn again while more than `config.max_no_data` of the window is invalid; after `TRIES`
    windows the one with the smallest invalid share is taken.

    Args:
        sample: the image and its labels.
        config: crop size, range of the zoom, and largest invalid share.
        rng: source of all random numbers.
        target_class: a class that the window should contain: if the image has it, one of its pixels, drawn uniformly,
            lies in the window.
    """
    best, fewest = None, math.inf
    for _ in range(TRIES):
        window = _draw(sample.label.numpy(), config, rng, target_class)
        if config.max_no_data >= 1:
            return window
        share = _invalid_share(sample.valid.numpy(), window)
        if share <= config.max_no_data:
            return window
        if share < fewest:
            best, fewest = window, share
    assert best is not None
    return best


def random_zoom(scale: tuple[float, float], rng: np.random.Generator) -> float:
    """A zoom factor in that range, uniform in its logarithm, so that halving is as likely as doubling."""
    return float(np.exp(rng.uniform(np.log(scale[0]), np.log(scale[1]))))


def _draw(
    label: np.ndarray, config: AugmentConfig, rng: np.random.Generator, target_class: int | None
) -> Window:
    height, width = label.shape
    row = column = None
    if target_class is not None and len(places := np.flatnonzero(label == target_class)):
        row, column = divmod(int(places[rng.integers(len(places))]), width)
    zoom = random_zoom(config.scale, rng)
    tall, wide = (max(1, round(side / zoom)) for side in config.crop)
    return _offset(height, tall, row, rng), _offset(width, wide, column, rng), tall, wide


def _offset(available: int, extent: int, point: int | None, rng: np.random.Generator) -> int:
    """A random start such that the window lies in the image, or the image in the window, and `point` lies in both."""
    spare = available - extent
    first, last = min(spare, 0), max(spare, 0)
    if point is not None:
        first, last = max(first, point - extent + 1), min(last, point)
    return int(rng.integers(first, last + 1))


def _invalid_share(valid: np.ndarray, window: Window) -> float:
    """Share of the window that is invalid or outside the image."""
    top, left, tall, wide = window
    inside = valid[max(top, 0) : top + tall, max(left, 0) : left + wide]
    return 1 - np.count_nonzero(inside) / (tall * wide)


def clip_window(height: int, width: int, window: Window, crop: tuple[int, int]) -> tuple[Area, Area]:
    """The part of the window that lies in an image of that size, and the area of the crop that it fills."""
    top, left, tall, wide = window
    rows, down = _clip_axis(height, top, tall, crop[0])
    columns, across = _clip_axis(width, left, wide, crop[1])
    return (rows, columns), (down, across)


def _clip_axis(available: int, start: int, extent: int, crop: int) -> tuple[slice, slice]:
    first, last = max(start, 0), min(start + extent, available)
    size = max(1, round((last - first) * crop / extent))
    at = min(round((first - start) * crop / extent), crop - size)
    return slice(first, last), slice(at, at + size)
