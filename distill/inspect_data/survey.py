"""A data set counted in one pass: what each split holds, image by image, in memory that does not grow with it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from deploy.tasks.grasp.geometry import ANGLE, HEIGHT, WIDTH
from distill.data.grasp.sample import GraspSample
from distill.data.sample import Sample
from distill.data.splits import Splits
from distill.inspect_data.numbers import Numbers, Summary
from distill.reporting.csv_files import Cell

SHARES = 20
"""Equal ranges (0, 1/20], … (19/20, 1] of a class' share of a tile; tiles without it are counted apart."""


@dataclass(frozen=True)
class ClassSurvey:
    """One class in one split."""

    name: str
    pixels: int
    share: float | None
    """Of the valid pixels; None where there are none."""
    images: int
    """In how many it occurs."""
    tiles: tuple[int, ...]
    """Tiles without it, then tiles by its share of their valid pixels, as `SHARES` says."""


@dataclass(frozen=True)
class SplitSurvey:
    """What a split holds."""

    split: str
    images: int
    sizes: dict[str, int]
    """Images of each height×width, the commonest first."""
    channels: dict[str, Summary | None]
    """Valid pixels of each channel; of grasp data, those that were measured."""
    no_data: float
    """Share of pixels without data in some channel."""
    void: float
    """Share of pixels with data that no class is given to."""
    empty: int
    """Images without a valid pixel; of grasp data, without a grasp."""
    classes: tuple[ClassSurvey, ...] = ()
    grasps: dict[str, Summary | None] | None = None
    """Of grasp data: grasps per image, widths and jaws in pixels, angles in degrees."""


class Part(Protocol):
    """What is counted besides the pixels: labels or grasps."""

    @property
    def header(self) -> tuple[str, ...]:
        """What the rows hold."""
        ...

    def update(self, sample: Any) -> Iterator[list[Cell]]:
        """Count a sample, and yield a row of the table of tiles for each of its tiles."""
        ...

    def results(self) -> dict[str, Any]:
        """Fields of `SplitSurvey`."""
        ...


class Survey:
    """A pass over all splits: consume `rows`, and `splits` holds the result."""

    def __init__(self, data: Splits, tile: tuple[int, int] | None = None) -> None:
        """`tile` is the height and width of the windows of which class shares are taken; None = whole images."""
        self.data, self.tile = data, tile
        self.splits: list[SplitSurvey] = []
        self.header = ("split", "image", *self._part().header)

    def rows(self) -> Iterator[list[Cell]]:
        """A row of the table of tiles for each tile of each image, as the splits are counted."""
        for split in ("train", "val", "test")[: 2 if self.data.tested_on == "val" else 3]:
            reader, pixels, part = getattr(self.data, split), Pixels(self.data), self._part()
            for index in range(len(reader)):
                sample = reader[index]
                pixels.update(sample)
                for row in part.update(sample):
                    yield [split, sample.id, *row]
            self.splits.append(SplitSurvey(split, len(reader), **pixels.results() | part.results()))

    def _part(self) -> Part:
        if self.data.task == "grasp":
            return Grasps()
        return Labels([info.name for info in self.data.classes], self.tile)


class Pixels:
    """Sizes and channels of images."""

    def __init__(self, data: Splits) -> None:
        finest = 1.0 if data.optical else 0.0
        self.channels = {name: Numbers(finest) for name in data.channels}
        self.sizes: Counter[str] = Counter()
        self.total = self.missing = self.void = 0

    def update(self, sample: Sample | GraspSample) -> None:
        """Count an image."""
        image = sample.image.numpy()
        finite = np.isfinite(image)
        has_data = finite.all(axis=0)
        labeled = sample.valid.numpy() if isinstance(sample, Sample) else None
        for values, known, numbers in zip(image, finite, self.channels.values(), strict=True):
            numbers.update(values[known if labeled is None else labeled])
        self.sizes["×".join(map(str, has_data.shape))] += 1
        self.total += has_data.size
        self.missing += int((~has_data).sum())
        if labeled is not None:
            self.void += int((has_data & ~labeled).sum())

    def results(self) -> dict[str, Any]:
        """Fields of `SplitSurvey`."""
        return {
            "sizes": dict(self.sizes.most_common()),
            "channels": {name: numbers.summary() for name, numbers in self.channels.items()},
            "no_data": self.missing / max(1, self.total),
            "void": self.void / max(1, self.total - self.missing),
        }


class Labels:
    """Class shares of images and tiles."""

    def __init__(self, classes: Sequence[str], tile: tuple[int, int] | None) -> None:
        self.classes, self.tile = classes, tile
        self.header = ("top", "left", "height", "width", "valid", *classes)
        self.pixels = np.zeros(len(classes), np.int64)
        self.images = np.zeros(len(classes), np.int64)
        self.tiles = np.zeros((len(classes), SHARES + 1), np.int64)
        self.empty = 0

    def update(self, sample: Sample) -> Iterator[list[Cell]]:
        """Count a labeled image; rows of place, size, share of valid pixels, and share of each class among these."""
        label, valid = sample.label.numpy(), sample.valid.numpy()
        counts = self._counts(label[valid])
        self.pixels += counts
        self.images += counts > 0
        self.empty += not counts.any()
        for top, left, height, width in _windows(label.shape[0], label.shape[1], self.tile):
            place = slice(top, top + height), slice(left, left + width)
            counts = self._counts(label[place][valid[place]])
            total = int(counts.sum())
            shares = counts / max(1, total)
            if total:
                # exact, as a share such as 3/20 in floating point may lie on either side of the border
                bins = -(-counts * SHARES // total)
                self.tiles[np.arange(len(counts)), bins] += 1
            figures = [total / (height * width), *shares.tolist()] if total else [0.0, *[None] * len(counts)]
            yield [top, left, height, width, *figures]

    def results(self) -> dict[str, Any]:
        """Fields of `SplitSurvey`."""
        total = int(self.pixels.sum())
        classes = tuple(
            ClassSurvey(name, pixels, pixels / total if total else None, images, tuple(tiles))
            for name, pixels, images, tiles in zip(
                self.classes, self.pixels.tolist(), self.images.tolist(), self.tiles.tolist(), strict=True
            )
        )
        return {"classes": classes, "empty": self.empty}

    def _counts(self, labels: np.ndarray) -> np.ndarray:
        return np.bincount(labels, minlength=len(self.classes))


class Grasps:
    """How many grasps images have, and which."""

    header = ("height", "width", "no data", "grasps", "mean width")

    def __init__(self) -> None:
        self.numbers = {
            "per image": Numbers(1.0),
            "width": Numbers(1.0),
            "jaw": Numbers(1.0),
            "angle": Numbers(4.0),
        }
        self.empty = 0

    def update(self, sample: GraspSample) -> Iterator[list[Cell]]:
        """Count an image; one row of its size, share of pixels without data, grasps and their mean width in pixels."""
        grasps = sample.grasps
        widths = grasps[:, WIDTH]
        values = [len(grasps)], widths, grasps[:, HEIGHT], np.degrees(grasps[:, ANGLE])
        for numbers, its in zip(self.numbers.values(), values, strict=True):
            numbers.update(np.asarray(its))
        self.empty += len(grasps) == 0
        has_data = np.isfinite(sample.image.numpy()).all(axis=0)
        mean_width = float(widths.mean()) if len(grasps) else None
        yield [*has_data.shape, 1 - float(has_data.mean()), len(grasps), mean_width]

    def results(self) -> dict[str, Any]:
        """Fields of `SplitSurvey`."""
        return {"grasps": {name: it.summary() for name, it in self.numbers.items()}, "empty": self.empty}


def _windows(height: int, width: int, tile: tuple[int, int] | None) -> Iterator[tuple[int, int, int, int]]:
    """Top, left, height and width of the tiles of an image, side by side; those at its end may be smaller."""
    tall, wide = tile or (height, width)
    for top in range(0, height, tall):
        for left in range(0, width, wide):
            yield top, left, min(tall, height - top), min(wide, width - left)
