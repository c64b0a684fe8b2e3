"""A reader as the training loop sees it: at network scale, without NaN, augmented."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from deploy.errors import UserError
from deploy.inference.normalize import Normalize, fill_of, filled, standardized
from deploy.inference.preprocess import resize, resize_nearest
from distill.config import AugmentConfig
from distill.data.augment import augment as vary
from distill.data.augment import check_augment
from distill.data.cache import SampleCache
from distill.data.sample import IGNORE, Sample
from distill.data.seeding import generator
from distill.data.splits import Reader

Key = tuple[int, int]
"""Epoch and index."""


class TrainView(Dataset):
    """Samples by (epoch, index), ready to be batched.

    An image comes at network scale: resized to `size` (height, width) when `resize` is "stretch", by the rule of
    `deploy.inference.preprocess`, and as it is when `resize` is "tile". Pixels without data take the channel mean. Then `augment`
    is applied, if any; its random numbers are a pure function of (seed, epoch, index), or, where there is a fixed
    number of `views` an image, of (seed, epoch mod views, index).

    `augment.balance` is the share of keys that give a crop around a class instead, drawn evenly, in an image drawn
    evenly from those that have it: `class_images` holds their indices, class by class.

    By `normalize` "image" it comes standardized by its own numbers, by "patch" what is left of it in the end (see
    `deploy.inference.normalize`); it is float32 then, and without photometric jitter, of which little would be left.

    With `cache` the image at network scale is `kept` in memory, as uint8 where it is optical.
    """

    def __init__(
        self,
        reader: Reader,
        *,
        size: tuple[int, int],
        resize: str = "stretch",
        augment: AugmentConfig | None,
        mean: Sequence[float],
        optical: bool,
        seed: int = 0,
        views: int = 0,
        cache: bool = True,
        normalize: Normalize = "set",
        class_images: Sequence[np.ndarray] = (),
    ) -> None:
        if augment is not None:
            check_augment(augment)
            assert class_images or not augment.balance
            if augment.rotate:
                raise UserError(f"--augment.rotate {augment.rotate}: is for grasp data only; leave it at 0")
        self.reader = reader
        self.size = size
        self.resize = resize
        self.augment = augment
        self.mean = tuple(fill_of(tuple(mean), normalize).tolist())
        self.optical = optical and normalize == "set"
        self.normalize: Normalize = normalize
        self.seed = seed
        self.views = views
        self._occurring = [(label, images) for label, images in enumerate(class_images) if len(images)]
        self.cached = SampleCache(self._base, _bytes, cache)

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, key: Key) -> Sample:
        """The sample as float32 C×H×W without NaN; H×W is `augment.crop`, or the network scale without `augment`."""
        sample = self._varied(key)
        if self.normalize != "patch":
            return sample
        patch = standardized(sample.image.permute(1, 2, 0).numpy())
        return replace(sample, image=torch.from_numpy(patch).permute(2, 0, 1).contiguous())

    def _varied(self, key: Key) -> Sample:
        epoch, index = key
        if self.augment is None:
            base = self.cached[index]
            image = base.image.to(torch.float32, memory_format=torch.contiguous_format)
            return Sample(image, base.label.long(), base.valid, base.id)
        rng = generator("augment", self.seed, epoch % self.views if self.views else epoch, index)
        wanted = None
        if self.augment.balance and rng.random() < self.augment.balance:
            wanted, images = self._occurring[rng.integers(len(self._occurring))]
            index = int(images[rng.integers(len(images))])
        return vary(self.cached[index], self.augment, rng, self.mean, self.optical, wanted)

    def preload(self, other: Any = None) -> None:
        """Decode the images that fit the cache; with another view of the same reader and size, share what it has."""
        self.cached.fill(len(self), None if other is None else other.cached)

    def _base(self, index: int) -> Sample:
        return self._prepare(self.reader[index])

    def _prepare(self, sample: Sample) -> Sample:
        """The sample before augmentation, in compact types: image uint8 or float32, label uint8."""
        kind = np.uint8 if self.optical else np.float32
        image = sample.image.numpy().transpose(1, 2, 0).astype(kind, order="C")
        if (
            not self.optical
        ):  # as in deploy.inference.preprocess, a pixel that lacks one channel is replaced in all
            has_data = np.all(np.isfinite(image), axis=2)
            image = filled(image, has_data, np.asarray(self.mean, np.float32), self.normalize)
        label = sample.label.numpy().astype(np.uint8)
        if self.resize == "stretch":
            image, label = resize(image, *self.size), resize_nearest(label, *self.size)
        # uint8 keeps its channels last in memory, which is how augmentation reads it fastest
        planes = image.transpose(2, 0, 1) if self.optical else np.ascontiguousarray(image.transpose(2, 0, 1))
        return Sample(
            image=torch.from_numpy(planes),
            label=torch.from_numpy(label),
            valid=torch.from_numpy(label != IGNORE),
            id=sample.id,
        )


def _bytes(sample: Sample) -> int:
    return sum(t.numel() * t.element_size() for t in (sample.image, sample.label, sample.valid))
