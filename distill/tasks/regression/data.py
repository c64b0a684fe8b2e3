"""Images with maps: the built-in table-top's depth from colors, and augmented views of any such data set."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from deploy.inference.preprocess import resize, resize_nearest
from deploy.tasks.regression.levels import LEVELS
from distill.config import AugmentConfig, DataConfig
from distill.data.cache import SampleCache
from distill.data.grasp.augment import jitter_rgb, random_matrix, valid_mask, warp
from distill.data.grasp.tabletop import TabletopReader, open_tabletop
from distill.data.sample import Sample
from distill.data.seeding import augmentation_generator
from distill.data.splits import Reader, Splits
from distill.data.view import Key

CAMERA = 0.7
"""Meters from camera to table in all maps. Colors do not show how far away the camera was, so maps do not, either."""
TABLE = 90
"""Percentile of the measured depth that is the table's."""


@dataclass(frozen=True)
class DepthReader:
    """The table-top's scenes: colors, and the depth that a camera `CAMERA` above the table sees.

    Samples have float32 H×W labels in meters, NaN where nothing was measured.
    """

    scenes: TabletopReader
    """With all of its channels."""

    @property
    def ids(self) -> Sequence[str]:
        """The names of the scenes."""
        return self.scenes.ids

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> Sample:
        scene = self.scenes[index]
        colors, depth = scene.image[:3], scene.image[3]
        measured = torch.isfinite(depth)
        table = np.percentile(depth[measured].numpy(), TABLE) if measured.any() else CAMERA
        return Sample(colors, depth - float(table) + CAMERA, measured, scene.id)


def open_tabletop_depth(config: DataConfig, seed: int) -> Splits:
    """Splits of `config.synthetic_counts` scenes of `config.size` pixels.

    Raises:
        UserError: as `open_tabletop`.
    """
    scenes = open_tabletop(replace(config, channels=("rgbd",)), seed)
    train, val, test = (DepthReader(part) for part in (scenes.train, scenes.val, scenes.test))  # pyright: ignore[reportArgumentType]
    return Splits("tabletop_depth", LEVELS, ("R", "G", "B"), True, train, val, test, task="regression")


class MapView(Dataset):
    """Samples by (epoch, index), ready to be batched; see `distill.data.view.View`.

    Images are resized to `size` by the rule of `deploy.inference.preprocess`, maps by nearest neighbor, so that no
    value is interpolated across an edge. One matrix then transforms both, as `distill.data.grasp.augment` describes.

    Args:
        reader: samples with float32 H×W labels.
        size: height and width of the network's input.
        augment: random changes; None: none.
        mean: of each channel; fills the padding.
        seed, views: random numbers are a pure function of (seed, epoch mod views, index); `views` 0: of the epoch.
        cache: keep the images at network scale in memory.
    """

    resize = "stretch"

    def __init__(
        self,
        reader: Reader,
        *,
        size: tuple[int, int],
        augment: AugmentConfig | None,
        mean: Sequence[float],
        seed: int = 0,
        views: int = 0,
        cache: bool = True,
    ) -> None:
        self.reader, self.size, self.augment = reader, size, augment
        self.mean, self.seed, self.views = tuple(mean), seed, views
        self.cached = SampleCache(self._base, lambda base: base[0].nbytes + base[1].nbytes, cache)

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, key: Key) -> Sample:
        """`image` float32 C×H×W without NaN, `label` float32 H×W (0 where not valid), `valid` bool H×W.

        H×W is `augment.crop`, or `size` without `augment`.
        """
        epoch, index = key
        image, values = self.cached[index]
        if self.augment is None:
            return self._sample(image.astype(np.float32), values, np.ones(self.size, bool), index)
        rng = augmentation_generator(self.seed, epoch, index, self.views)
        matrix, crop = random_matrix(*self.size, self.augment, rng), self.augment.crop
        moved = warp(image, matrix, crop).reshape(*crop, -1)
        colors = range(3) if moved.shape[2] == 3 else ()
        moved = jitter_rgb(moved, colors, self.augment.photometric, rng).astype(np.float32, copy=False)
        values = cv2.warpAffine(values, matrix, (crop[1], crop[0]), flags=cv2.INTER_NEAREST)
        return self._sample(moved, values, valid_mask(matrix, self.size, crop), index)

    def preload(self, other: Any = None) -> None:
        """Decode the images that fit the cache; with another view of the same reader and size, share what it has."""
        self.cached.fill(len(self), None if other is None else other.cached)

    def _sample(self, image: np.ndarray, values: np.ndarray, inside: np.ndarray, index: int) -> Sample:
        planes = np.ascontiguousarray(image.transpose(2, 0, 1))
        planes[:, ~inside] = np.asarray(self.mean, np.float32)[:, None]
        valid = inside & np.isfinite(values)
        label = torch.from_numpy(np.where(valid, values, np.float32(0)))
        return Sample(torch.from_numpy(planes), label, torch.from_numpy(valid), self.reader.ids[index])

    def _base(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image uint8 or float32 H×W×C and map float32 H×W with NaN, at network scale."""
        sample = self.reader[index]
        image = resize(sample.image.permute(1, 2, 0).numpy().astype(np.uint8, order="C"), *self.size)
        values = torch.where(sample.valid, sample.label, torch.nan).numpy().astype(np.float32)
        return image, resize_nearest(values, *self.size)
