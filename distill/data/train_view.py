"""The training loop's view of a reader: images at network scale, without NaN, augmented."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from deploy.bundle.pixel_scale import LINEAR, PixelScale
from deploy.errors import UserError
from deploy.inference.normalize import Normalize, fill_of, filled, standardized
from deploy.inference.preprocess import resize, resize_nearest
from distill.config import AugmentConfig
from distill.data.augment import augment_sample
from distill.data.cache import SampleCache
from distill.data.sample import IGNORE, Sample
from distill.data.seeding import augmentation_generator
from distill.data.splits import Reader
from distill.data.view import Key


@dataclass(eq=False)
class TrainView(Dataset):
    """Samples by (epoch, index), ready to be batched.

    An image is brought to network scale as `resize` says, and its pixels without data are filled. Then it is augmented,
    if `augment` is given.

    Raises:
        UserError: `augment` rotates, which segmentation does not support.
    """

    reader: Reader
    _: KW_ONLY
    size: tuple[int, int]
    """Height and width at network scale."""
    resize: str = "stretch"
    """"stretch" resizes images to `size`, as `deploy.inference.preprocess` does; "tile" leaves them at their size."""
    augment: AugmentConfig | None
    """`augment.balance` is the share of crops drawn around a class instead: the class is drawn uniformly, then one of
    the images that contain it."""
    mean: tuple[float, ...]
    """Fills pixels without data and padding, per channel, in raw units; 0 if `normalize` is "image", NaN if it is
    "patch"."""
    optical: bool
    """Images are uint8 (0..255)."""
    seed: int = 0
    """Augmentation is a pure function of (seed, epoch, index); with `views`, of (seed, epoch mod views, index)."""
    views: int = 0
    """Fixed number of augmented views per image; 0 = a new view in every epoch."""
    cache: bool = True
    """Keep images at network scale in memory, as uint8 if they are optical and `normalize` is "set"."""
    normalize: Normalize = "set"
    """"image" standardizes each image by its own mean and deviation, "patch" each final crop (see
    `deploy.inference.normalize`). Both are float32 without color jitter, which standardization would mostly undo."""
    class_images: Sequence[np.ndarray] = ()
    """Indices of the images that contain each class; required by `augment.balance`."""
    labeled: int | None = None
    """Number of images with labels, the first ones of `reader`; None = all. The others are never crops of a class."""
    cached: SampleCache[Sample] = field(init=False, repr=False)
    """Samples at network scale, before augmentation."""

    def __post_init__(self) -> None:
        if self.augment is not None:
            assert self.class_images or not self.augment.balance
            if self.augment.rotate:
                raise UserError(
                    f"--augment.rotate {self.augment.rotate}: is not for segmentation; leave it at 0"
                )
        self.mean = tuple(fill_of(self).tolist())
        self._as_uint8 = self.optical and self.normalize == "set"
        self._labeled = len(self.reader) if self.labeled is None else self.labeled
        self._occurring = [(label, images) for label, images in enumerate(self.class_images) if len(images)]
        self.cached = SampleCache(self._load, _bytes, self.cache)

    @property
    def scale(self) -> PixelScale:
        """`mean` is in raw units (see `deploy.inference.normalize.Normalization`)."""
        return LINEAR

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, key: Key) -> Sample:
        """The sample as float32 C×H×W without NaN; H×W is `augment.crop`, or the network scale without `augment`."""
        sample = self._augmented(key)
        if self.normalize != "patch":
            return sample
        patch = standardized(sample.image.permute(1, 2, 0).numpy())
        return replace(sample, image=torch.from_numpy(patch).permute(2, 0, 1).contiguous())

    def _augmented(self, key: Key) -> Sample:
        epoch, index = key
        if self.augment is None:
            base = self.cached[index]
            image = base.image.to(torch.float32, memory_format=torch.contiguous_format)
            return replace(base, image=image, label=base.label.long())
        rng = augmentation_generator(self.seed, epoch, index, self.views)
        target_class = None
        if self.augment.balance and index < self._labeled and rng.random() < self.augment.balance:
            target_class, images = self._occurring[rng.integers(len(self._occurring))]
            index = int(images[rng.integers(len(images))])
        return augment_sample(self.cached[index], self.augment, rng, self.mean, self._as_uint8, target_class)

    def preload(self, other: Any = None) -> None:
        """Decode images until the cache is full.

        Args:
            other: another view of the same reader and size, whose cached images are shared.
        """
        self.cached.fill(len(self), None if other is None else other.cached)

    def _load(self, index: int) -> Sample:
        return self.to_network_scale(self.reader[index])

    def to_network_scale(self, sample: Sample) -> Sample:
        """The sample before augmentation, in compact types: image uint8 or float32, label uint8."""
        dtype = np.uint8 if self._as_uint8 else np.float32
        image = sample.image.numpy().transpose(1, 2, 0).astype(dtype, order="C")
        if not self._as_uint8:
            # As in deploy.inference.preprocess, a pixel that lacks one channel is filled in all of them.
            has_data = np.all(np.isfinite(image), axis=2)
            image = filled(image, has_data, np.asarray(self.mean, np.float32), self.normalize)
        label = sample.label.numpy().astype(np.uint8)
        masks = [] if sample.unlabeled is None else [sample.valid.numpy(), sample.unlabeled.numpy()]
        if self.resize == "stretch":
            image = resize(image, *self.size)
            label, *masks = (resize_nearest(plane, *self.size) for plane in (label, *masks))
        # uint8 images stay channels-last in memory, the layout that augmentation reads fastest.
        planes = (
            image.transpose(2, 0, 1) if self._as_uint8 else np.ascontiguousarray(image.transpose(2, 0, 1))
        )
        valid, unlabeled = (
            map(torch.from_numpy, masks) if masks else (torch.from_numpy(label != IGNORE), None)
        )
        return Sample(torch.from_numpy(planes), torch.from_numpy(label), valid, sample.id, unlabeled)


def _bytes(sample: Sample) -> int:
    return sum(value.nbytes for value in vars(sample).values() if isinstance(value, torch.Tensor))
