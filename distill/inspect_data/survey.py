"""Survey of a data set: the contents of each split, counted image by image in one pass and constant memory."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from deploy.heartbeat import counted
from deploy.tasks.grasp.geometry import ANGLE, HEIGHT, WIDTH
from distill.data.grasp.sample import GraspSample
from distill.data.sample import Sample
from distill.data.splits import Splits
from distill.inspect_data.numbers import RunningSummary, Summary
from distill.inspect_data.twins import Thumbnails
from distill.reporting.csv_files import Cell

SHARES = 20
"""Equal ranges (0, 1/20], … (19/20, 1] of a class's share of a tile; tiles without the class are counted separately."""


@dataclass(frozen=True)
class ClassSurvey:
    """One class in one split."""

    name: str
    pixels: int
    share: float | None
    """Share of the valid pixels; None if there are none."""
    images: int
    """Number of images that contain it."""
    tiles: tuple[int, ...]
    """Number of tiles without the class, then in each range of its share of their valid pixels (see `SHARES`)."""


@dataclass(frozen=True)
class SplitSurvey:
    """The contents of a split."""

    split: str
    images: int
    sizes: dict[str, int]
    """Number of images of each height×width, the most common first."""
    channels: dict[str, Summary | None]
    """Statistics of the valid pixels of each channel; for grasp data, of the pixels that were measured."""
    no_data: float
    """Share of pixels without data in at least one channel."""
    void: float
    """Share of the pixels with data that have no class."""
    empty: int
    """Number of images without a valid pixel; for grasp data, without a grasp."""
    classes: tuple[ClassSurvey, ...] = ()
    grasps: dict[str, Summary | None] | None = None
    """For grasp data: statistics of grasps per image, widths and jaws in pixels, and angles in degrees."""


class ContentCounter(Protocol):
    """Counts what the samples of a task hold besides pixels: labels or grasps."""

    @property
    def header(self) -> tuple[str, ...]:
        """Column names of the rows."""
        ...

    def update(self, sample: Any) -> Iterator[list[Cell]]:
        """Count a sample, and yield a row for each of its tiles."""
        ...

    def results(self) -> dict[str, Any]:
        """Fields of `SplitSurvey`."""
        ...


class Survey:
    """One pass over all splits: consume `rows`, then `splits` holds the result.

    Args:
        data: the data set.
        tile: height and width of the tiles for which class shares are counted; None = whole images.
    """

    def __init__(self, data: Splits, tile: tuple[int, int] | None = None) -> None:
        self.data, self.tile = data, tile
        self.splits: list[SplitSurvey] = []
        self.thumbnails: dict[str, np.ndarray] = {}
        """Of each split, from `Thumbnails.result`."""
        self.header = ("split", "image", *self._content_counter().header)

    def rows(self) -> Iterator[list[Cell]]:
        """Count all splits, and yield a row for each tile of each image."""
        for split in ("train", "val", "test")[: 2 if self.data.tested_on == "val" else 3]:
            reader, pixels, content = (
                getattr(self.data, split),
                PixelCounter(self.data),
                self._content_counter(),
            )
            thumbnails = Thumbnails()
            for index in counted(range(len(reader))):
                sample = reader[index]
                pixels.update(sample)
                thumbnails.update(sample.image.numpy())
                for row in content.update(sample):
                    yield [split, sample.id, *row]
            self.thumbnails[split] = thumbnails.result()
            self.splits.append(SplitSurvey(split, len(reader), **pixels.results() | content.results()))

    def _content_counter(self) -> ContentCounter:
        if self.data.task == "grasp":
            return GraspCounter()
        return LabelCounter([info.name for info in self.data.classes], self.tile)


class PixelCounter:
    """Counts sizes and pixels of images."""

    def __init__(self, data: Splits) -> None:
        finest = 1.0 if data.optical else 0.0
        self.channels = {name: RunningSummary(finest) for name in data.channels}
        self.sizes: Counter[str] = Counter()
        self.total = self.missing = self.void = 0

    def update(self, sample: Sample | GraspSample) -> None:
        """Count an image."""
        image = sample.image.numpy()
        finite = np.isfinite(image)
        has_data = finite.all(axis=0)
        labeled = sample.labeled.numpy() if isinstance(sample, Sample) else None
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


class LabelCounter:
    """Counts the class shares of images and tiles."""

    def __init__(self, classes: Sequence[str], tile: tuple[int, int] | None) -> None:
        self.classes, self.tile = classes, tile
        self.header = ("top", "left", "height", "width", "valid", *classes)
        self.pixels = np.zeros(len(classes), np.int64)
        self.images = np.zeros(len(classes), np.int64)
        self.tiles = np.zeros((len(classes), SHARES + 1), np.int64)
        self.empty = 0

    def update(self, sample: Sample) -> Iterator[list[Cell]]:
        """Count an image; rows hold place, size, share of valid pixels, and the share of each class in these."""
        label, valid = sample.label.numpy(), sample.labeled.numpy()
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
                # In integers: in floating point, a share such as 3/20 could lie on either side of the border.
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


class GraspCounter:
    """Counts the grasps of images, with their sizes and angles."""

    header = ("height", "width", "no data", "grasps", "mean width")

    def __init__(self) -> None:
        self.numbers = {
            "per image": RunningSummary(1.0),
            "width": RunningSummary(1.0),
            "jaw": RunningSummary(1.0),
            "angle": RunningSummary(4.0),
        }
        self.empty = 0

    def update(self, sample: GraspSample) -> Iterator[list[Cell]]:
        """Count an image; its row holds size, share of no data, number of grasps and their mean width in pixels."""
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
    """Top, left, height and width of adjacent tiles of an image; those at its edges may be smaller."""
    tall, wide = tile or (height, width)
    for top in range(0, height, tall):
        for left in range(0, width, wide):
            yield top, left, min(tall, height - top), min(wide, width - left)
