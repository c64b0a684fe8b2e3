"""The training loop's view of a reader of grasps: images at network scale, augmented, with grasps as target maps."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from deploy.inference.depth import center, fill_holes
from deploy.inference.preprocess import resize
from deploy.tasks.grasp.decode import to_image
from distill.config import AugmentConfig
from distill.data.cache import SampleCache
from distill.data.grasp.affine import transform_grasps
from distill.data.grasp.augment import jitter_rgb, random_matrix, valid_mask, warp
from distill.data.grasp.files import DEPTH
from distill.data.grasp.sample import GraspSample, overlaps_image
from distill.data.grasp.splits import GraspReader
from distill.data.grasp.targets import encode
from distill.data.sample import Sample
from distill.data.seeding import augmentation_generator
from distill.data.view import Key


@dataclass(frozen=True, eq=False)
class Base:
    """A sample at network scale, before augmentation."""

    image: np.ndarray
    """H×W×C: uint8 colors, or float32 if there is depth, in meters from the camera, with its holes filled."""
    grasps: np.ndarray
    """float64 N×5 in its pixels."""
    has_data: bool
    """Whether any depth was measured; True if the images have no depth."""
    id: str
    object: str

    @property
    def bytes(self) -> int:
        """Size in memory."""
        return self.image.nbytes + self.grasps.nbytes


@dataclass(eq=False)
class GraspView(Dataset):
    """Samples by (epoch, index), ready to be batched: the counterpart of `distill.data.train_view.TrainView`.

    An image is brought to network scale as on a device: the holes of its depth are filled (`deploy.inference.depth`),
    and it is resized to `size` (`deploy.inference.preprocess`). Then it is augmented, if `augment` is given. Finally
    the depth that the network receives is centered.
    """

    resize = "stretch"
    reader: GraspReader
    _: KW_ONLY
    size: tuple[int, int]
    """Height and width at network scale. Use the aspect ratio of the images: stretched to another one, a grasp is no
    longer a rectangle (see `deploy.tasks.grasp.decode.to_image`)."""
    channels: Sequence[str]
    """Name of each channel: "depth" is depth; R, G and B are colors."""
    augment: AugmentConfig | None
    mean: tuple[float, ...]
    """Fills the padding, per channel."""
    seed: int = 0
    """Augmentation is a pure function of (seed, epoch, index); with `views`, of (seed, epoch mod views, index)."""
    views: int = 0
    """Fixed number of augmented views per image; 0 = a new view in every epoch."""
    cache: bool = True
    """Keep images at network scale in memory."""
    cached: SampleCache[Base] = field(init=False, repr=False)
    """Samples before augmentation."""

    def __post_init__(self) -> None:
        self._depth = list(self.channels).index(DEPTH) if DEPTH in self.channels else None
        self._colors = [list(self.channels).index(name) for name in "RGB" if name in self.channels]
        self.cached = SampleCache(self._load, attrgetter("bytes"), self.cache)

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, key: Key) -> Sample:
        """The sample of (epoch, index).

        Returns:
            `image` is float32 C×H×W without NaN, colors in 0..255 and depth in meters from its mean; `label` is float32
            4×H×W (see `distill.data.grasp.targets`); `valid` is bool H×W, False in the padding around a rotated or
            smaller image, and everywhere if no depth was measured. H×W is `augment.crop`, or `size` without `augment`.
        """
        epoch, index = key
        base = self.cached[index]
        if self.augment is None:
            valid = np.full(self.size, base.has_data)
            return self._sample(base.image.astype(np.float32), base.grasps, valid, base.id)
        rng = augmentation_generator(self.seed, epoch, index, self.views)
        matrix = random_matrix(*self.size, self.augment, rng)
        image = warp(base.image, matrix, self.augment.crop).reshape(*self.augment.crop, -1)
        image = jitter_rgb(image, self._colors, self.augment.photometric, rng).astype(np.float32, copy=False)
        valid = valid_mask(matrix, self.size, self.augment.crop) & base.has_data
        return self._sample(image, transform_grasps(base.grasps, matrix), valid, base.id)

    def at_scale(self, index: int) -> GraspSample:
        """The image as the network receives it, without augmentation, and its grasps in pixels of that image."""
        base = self.cached[index]
        sample = self._sample(base.image.astype(np.float32), base.grasps, np.ones(self.size, bool), base.id)
        return GraspSample(sample.image, base.grasps, base.id, base.object)

    def preload(self, other: Any = None) -> None:
        """Decode images until the cache is full.

        Args:
            other: another view of the same reader and size, whose cached images are shared.
        """
        self.cached.fill(len(self), None if other is None else other.cached)

    def _sample(self, image: np.ndarray, grasps: np.ndarray, valid: np.ndarray, id: str) -> Sample:
        """Center the depth, fill the padding and draw the grasps; `image` is float32 H×W×C."""
        planes = np.ascontiguousarray(image.transpose(2, 0, 1))
        if self._depth is not None:
            planes[self._depth] = center(planes[self._depth], valid)
        if not valid.all():
            planes[:, ~valid] = np.asarray(self.mean, np.float32)[:, None]
        height, width = valid.shape
        maps = encode(grasps[overlaps_image(grasps, height, width)], height, width, min(self.size) / 2)
        return Sample(torch.from_numpy(planes), torch.from_numpy(maps), torch.from_numpy(valid), id)

    def _load(self, index: int) -> Base:
        """Read a sample and bring it to network scale."""
        sample = self.reader[index]
        image = sample.image.numpy().transpose(1, 2, 0)
        image = image.astype(np.uint8 if self._depth is None else np.float32, order="C")
        has_data = True
        if self._depth is not None:
            image[..., self._depth], measured = fill_holes(image[..., self._depth])
            has_data = bool(measured.any())
        grasps = to_image(sample.grasps, (image.shape[0], image.shape[1]), self.size)
        return Base(resize(image, *self.size), grasps, has_data, sample.id, sample.object)
