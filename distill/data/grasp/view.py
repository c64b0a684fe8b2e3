"""A reader of grasp samples as the training loop sees it: at network scale, without NaN, augmented, as target maps."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from deploy.inference.depth import center, fill_holes
from deploy.inference.preprocess import resize
from deploy.tasks.grasp.decode import to_image
from distill.config import AugmentConfig
from distill.data.augment import check_augment
from distill.data.cache import SampleCache
from distill.data.grasp.affine import moved
from distill.data.grasp.augment import covered, jittered, random_matrix, warp
from distill.data.grasp.files import DEPTH
from distill.data.grasp.sample import GraspSample, touches
from distill.data.grasp.splits import GraspReader
from distill.data.grasp.targets import encode
from distill.data.sample import Sample
from distill.data.seeding import generator
from distill.data.train_view import Key


@dataclass(frozen=True, eq=False)
class Base:
    """A sample at network scale, before augmentation."""

    image: np.ndarray
    """H×W×C: uint8 colors, or float32 where there is depth; holes are filled, depth is in meters from the camera."""
    grasps: np.ndarray
    """float64 N×5 in its pixels."""
    seen: bool
    """Whether any depth was measured; True where the images have none."""
    id: str
    object: str

    @property
    def bytes(self) -> int:
        """Memory that it takes."""
        return self.image.nbytes + self.grasps.nbytes


class GraspView(Dataset):
    """Samples by (epoch, index), ready to be batched: the counterpart of `distill.data.train_view.TrainView`.

    An image comes at network scale as on a device: holes of depth are filled (`deploy.inference.depth`), and it is resized
    to `size` (height, width) by `deploy.inference.preprocess`. Choose a size of the shape of the images, as a grasp in an image
    stretched to another shape is no rectangle any more (see `deploy.tasks.grasp.decode.to_image`). Then `augment` is applied,
    if any, and last of all depth is centered, on what the network sees of it. Random numbers and `cache` are as in
    `TrainView`.
    """

    resize = "stretch"

    def __init__(
        self,
        reader: GraspReader,
        *,
        size: tuple[int, int],
        channels: Sequence[str],
        augment: AugmentConfig | None,
        mean: Sequence[float],
        seed: int = 0,
        views: int = 0,
        cache: bool = True,
    ) -> None:
        """`channels` are their names: "depth" is depth, R, G and B are colors. `mean` of each fills the padding."""
        if augment is not None:
            check_augment(augment)
        self.reader = reader
        self.size = size
        self.channels = tuple(channels)
        self.augment = augment
        self.mean = tuple(mean)
        self.optical = DEPTH not in self.channels
        self.seed = seed
        self.views = views
        self._depth = None if self.optical else self.channels.index(DEPTH)
        self._colors = [self.channels.index(name) for name in "RGB" if name in self.channels]
        self.cached = SampleCache(self._base, attrgetter("bytes"), cache)

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, key: Key) -> Sample:
        """The sample of (epoch, index).

        `image` is float32 C×H×W without NaN, colors 0..255 and depth in meters from its mean; `label` float32 4×H×W
        (see `distill.data.grasp.targets`); `valid` bool H×W, False in the padding around a turned or smaller image, and
        everywhere when no depth was measured. H×W is `augment.crop`, or `size` without `augment`.
        """
        epoch, index = key
        base = self.cached[index]
        if self.augment is None:
            valid = np.full(self.size, base.seen)
            return self._sample(base.image.astype(np.float32), base.grasps, valid, base.id)
        rng = generator("augment", self.seed, epoch % self.views if self.views else epoch, index)
        matrix = random_matrix(*self.size, self.augment, rng)
        image = warp(base.image, matrix, self.augment.crop).reshape(*self.augment.crop, -1)
        image = jittered(image, self._colors, self.augment.photometric, rng).astype(np.float32, copy=False)
        valid = covered(matrix, self.size, self.augment.crop) & base.seen
        return self._sample(image, moved(base.grasps, matrix), valid, base.id)

    def at_scale(self, index: int) -> GraspSample:
        """The image as the network sees it and its grasps in that image's pixels, without augmentation."""
        base = self.cached[index]
        sample = self._sample(base.image.astype(np.float32), base.grasps, np.ones(self.size, bool), base.id)
        return GraspSample(sample.image, base.grasps, base.id, base.object)

    def preload(self, other: Any = None) -> None:
        """Decode the images that fit the cache; with another view of the same reader and size, share what it has."""
        self.cached.fill(len(self), None if other is None else other.cached)

    def _sample(self, image: np.ndarray, grasps: np.ndarray, valid: np.ndarray, id: str) -> Sample:
        """Center depth, fill the padding and draw the grasps; `image` is float32 H×W×C."""
        planes = np.ascontiguousarray(image.transpose(2, 0, 1))
        if self._depth is not None:
            planes[self._depth] = center(planes[self._depth], valid)
        if not valid.all():
            planes[:, ~valid] = np.asarray(self.mean, np.float32)[:, None]
        height, width = valid.shape
        maps = encode(grasps[touches(grasps, height, width)], height, width)
        return Sample(torch.from_numpy(planes), torch.from_numpy(maps), torch.from_numpy(valid), id)

    def _base(self, index: int) -> Base:
        return self._prepare(self.reader[index])

    def _prepare(self, sample: GraspSample) -> Base:
        image = sample.image.numpy().transpose(1, 2, 0)
        image = image.astype(np.uint8 if self.optical else np.float32, order="C")
        seen = True
        if self._depth is not None:
            image[..., self._depth], measured = fill_holes(image[..., self._depth])
            seen = bool(measured.any())
        grasps = to_image(sample.grasps, (image.shape[0], image.shape[1]), self.size)
        return Base(resize(image, *self.size), grasps, seen, sample.id, sample.object)
