"""Statistics of the training images: mean and deviation of each channel, pixels per class."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from deploy.bundle.pixel_scale import PixelScale
from deploy.errors import UserError
from deploy.heartbeat import counted
from deploy.inference.normalize import Normalize
from distill.config import DataConfig
from distill.data.sample import Sample
from distill.data.splits import Reader


@dataclass(frozen=True)
class Stats:
    """Statistics of a split over its valid pixels, which are scaled as `scale` says."""

    mean: tuple[float, ...]
    """Per channel."""
    std: tuple[float, ...]
    """Per channel; population deviation. 1 where a channel is constant, so that dividing by it is safe."""
    class_pixels: tuple[int, ...]
    """Labeled pixels of each class."""
    images: int
    class_images: tuple[bytes, ...] = ()
    """For each class one bit per image: whether the image contains the class; see `images_by_class`."""
    normalize: Normalize = "set"
    """Whether images are normalized by these statistics or by their own (see `deploy.inference.normalize`)."""
    target: tuple[float, float] = (0.0, 1.0)
    """For regression: mean and deviation of the maps, in their unit."""
    weights: str = ""
    """The weights file that `mean` and `std` are of, in place of the split (see `distill.pipeline.initial_weights`)."""
    log_floor: tuple[float, ...] | None = None
    """As in `deploy.bundle.pixel_scale.PixelScale`; `clip`, too."""
    clip: tuple[tuple[float, float], ...] | None = None

    @property
    def scale(self) -> PixelScale:
        """What `mean` and `std` are of."""
        return PixelScale(self.log_floor, self.clip)


def unmeasured(config: DataConfig, channels: int, classes: int) -> Stats:
    """Statistics of no data, for networks whose form matters and not their numbers.

    Args:
        config: how images are normalized and scaled.
        channels: how many they have.
        classes: number of classes.
    """
    numbers = {"log": {"log_floor": (1e-4,) * channels}, "percentile": {"clip": ((-1e4, 1e4),) * channels}}
    stats = Stats((0.0,) * channels, (1.0,) * channels, (1,) * classes, 1, normalize=config.normalize)
    return replace(stats, **numbers.get(config.scale, {}))


def compute_stats(reader: Reader, num_classes: int) -> Stats:
    """Compute the statistics of all samples, in one pass.

    Raises:
        UserError: no image has a valid pixel.
    """
    counts = np.zeros((len(reader), num_classes), np.int64)

    def count_classes(index: int, sample: Sample) -> None:
        counts[index] = np.bincount(sample.label[sample.labeled].numpy(), minlength=num_classes)

    mean, std = channel_moments(reader, count_classes)
    return Stats(
        mean=tuple(mean.tolist()),
        std=tuple(np.where(std > 1e-12 * np.maximum(1, np.abs(mean)), std, 1.0).tolist()),
        class_pixels=tuple(counts.sum(axis=0).tolist()),
        images=len(reader),
        class_images=tuple(np.packbits(column > 0).tobytes() for column in counts.T),
    )


def channel_moments(
    reader: Reader, look: Callable[[int, Sample], object] = lambda index, sample: None
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population deviation of each channel over the valid pixels of all samples, in one pass.

    Means and squared deviations are merged pairwise in float64 (Chan, Golub & LeVeque 1983), which stays exact where
    sums of squares would cancel.

    Args:
        reader: the samples.
        look: called with each sample and its index on the way.

    Raises:
        UserError: no image has a valid pixel.
    """
    moments: list[Moments] = []
    for index in counted(range(len(reader))):
        sample = reader[index]
        moments.append(moments_of(sample.image[:, sample.valid].numpy()))
        look(index, sample)
    count, mean, std = total_moments(moments)
    if not count.all():
        raise no_valid_pixel(reader)
    return mean, std


def no_valid_pixel(reader: Reader) -> UserError:
    """That images have none."""
    return UserError(
        f"none of the {len(reader)} training images has a valid pixel: check labels and no-data values"
    )


def images_by_class(stats: Stats) -> list[np.ndarray]:
    """The indices of the images that contain each class."""
    packed = (np.frombuffer(bits, np.uint8) for bits in stats.class_images)
    return [np.flatnonzero(np.unpackbits(bits, count=stats.images)) for bits in packed]


Moments = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Per channel, float64: number of pixels, mean, sum of squared deviations from it."""


def moments_of(pixels: np.ndarray) -> Moments:
    """The moments of N values, or of each row of C×N."""
    rows = np.atleast_2d(pixels).astype(np.float64)
    if rows.shape[1] == 0:
        zero = np.zeros(rows.shape[0])
        return zero, zero, zero
    mean = rows.mean(axis=1)
    return np.full(len(mean), float(rows.shape[1])), mean, np.square(rows - mean[:, None]).sum(axis=1)


def total_moments(parts: Iterable[Moments]) -> Moments:
    """Number of pixels, mean and standard deviation of all parts together; the deviation is NaN without any pixel."""
    count = mean = squares = np.zeros(1)
    for part in parts:
        count, mean, squares = merge_moments((count, mean, squares), part)
    with np.errstate(invalid="ignore"):
        return count, mean, np.sqrt(squares / count)


def merge_moments(a: Moments, b: Moments) -> Moments:
    """The moments of the union of two sets of pixels."""
    count = a[0] + b[0]
    share = np.divide(b[0], count, out=np.zeros_like(count), where=count > 0)
    shift = b[1] - a[1]
    return count, a[1] + shift * share, a[2] + b[2] + np.square(shift) * a[0] * share
