"""Whether resizing to the network's size changes the proportions of images, and sizes that keep them."""

import math
from collections.abc import Iterator
from itertools import product

from distill.data.splits import Reader
from distill.data_config import DataConfig

Shape = tuple[int, int]
"""Height and width."""
MOST = 1.25
"""Factor by which proportions may change without a word."""
LOOKED_AT = 5
"""Number of images that a run looks at."""
GRID = 16
"""Sides that are recommended are multiples of it."""


def narrowing(shape: Shape, size: Shape) -> float:
    """By how much what an image shows gets narrower (above 1) or flatter (below 1) where it is resized to `size`."""
    return (shape[1] / size[1]) / (shape[0] / size[0])


def proportional(shape: Shape, size: Shape) -> Shape:
    """A size with about as many pixels as `size`, and about the proportions of `shape`.

    It is `shape` if that has no more pixels; otherwise its sides are multiples of `GRID`.
    """
    height = math.sqrt(size[0] * size[1] * shape[0] / shape[1])
    if height >= shape[0]:
        return shape
    width, area = height * shape[1] / shape[0], math.prod(size)
    heights, widths = _neighbors(height), _neighbors(width)
    return min(
        product(heights, widths),
        key=lambda one: abs(math.log(narrowing(shape, one))) + 0.3 * abs(math.log(math.prod(one) / area)),
    )


def change(factor: float) -> str:
    """What a `narrowing` means, in words."""
    return f"{factor:.1f} times narrower" if factor > 1 else f"{1 / factor:.1f} times flatter"


def proportion_warnings(reader: Reader, config: DataConfig) -> Iterator[str]:
    """A warning where images are resized to other proportions.

    Args:
        reader: the training samples; a few are read.
        config: the network's size, and whether images are resized to it.
    """
    if config.resize == "tile":
        return
    shapes = [_shape(reader[index]) for index in spread(len(reader), LOOKED_AT)]
    if not shapes:
        return
    shape = max(shapes, key=lambda one: abs(math.log(narrowing(one, config.size))))
    factor = narrowing(shape, config.size)
    if max(factor, 1 / factor) > MOST:
        (tall, wide), fitting = config.size, proportional(shape, config.size)
        yield (
            f"warning: --data.size {tall} {wide} distorts images of {shape[0]}×{shape[1]}: all in them gets"
            f" {change(factor)}; --data.size {fitting[0]} {fitting[1]} keeps their proportions,"
            " --data.resize tile also their scale"
        )


def spread(count: int, most: int) -> list[int]:
    """At most so many positions, evenly over `count`."""
    taken = min(count, most)
    return [position * count // taken for position in range(taken)]


def _shape(sample: object) -> Shape:
    height, width = getattr(sample, "image").shape[-2:]  # noqa: B009 - of the samples of any task
    return int(height), int(width)


def _neighbors(side: float) -> tuple[int, int]:
    """The multiples of `GRID` on both sides, at least one."""
    return max(GRID, GRID * math.floor(side / GRID)), max(GRID, GRID * math.ceil(side / GRID))
