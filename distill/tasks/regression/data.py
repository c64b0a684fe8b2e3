"""Images with maps: the built-in table-top's depth from colors, and augmented views of any such data set."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from deploy.inference.normalize import filled
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
"""Distance from camera to table in all maps, in meters. Colors do not show the real one, so maps leave it out."""
TABLE = 90
"""Percentile of the measured depth that is taken as the depth of the table."""


@dataclass(frozen=True)
class DepthReader:
    """The scenes of the built-in table-top: colors, and the depth that a camera `CAMERA` above the table measures.

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
        UserError: the scenes are too small.
    """
    scenes = open_tabletop(replace(config, channels=("rgbd",)), seed)
    train, val, test = (DepthReader(part) for part in (scenes.train, scenes.val, scenes.test))  # pyright: ignore[reportArgumentType]
    return Splits("tabletop_depth", LEVELS, ("R", "G", "B"), True, train, val, test, task="regression")


class MapView(Dataset):
    """Samples by (epoch, index), ready to be batched; see `distill.data.view.View`.

    As on a device, pixels without data are filled with `mean`, and images are resized to `size`
    (`deploy.inference.preprocess`). Maps are resized by nearest neighbor, so that no value is interpolated across an
    edge. One matrix then transforms both, as `distill.data.grasp.augment` describes.

    Args:
        reader: samples with float32 H×W labels, not valid where the image has no data.
        size: height and width of the network's input.
        optical: images are uint8 (0..255); otherwise float32, with NaN where there is no data.
        augment: random changes; None = none. Colors change only in optical images of three channels.
        mean: per channel; fills pixels without data and padding.
        seed: augmentation is a pure function of (seed, epoch, index), or of (seed, epoch mod views, index).
        views: fixed number of augmented views per image; 0 = a new view in every epoch.
        cache: keep images and maps at network scale in memory.
    """

    resize = "stretch"

    def __init__(
        self,
        reader: Reader,
        *,
        size: tuple[int, int],
        optical: bool,
        augment: AugmentConfig | None,
        mean: Sequence[float],
        seed: int = 0,
        views: int = 0,
        cache: bool = True,
    ) -> None:
        self.reader, self.size, self.optical, self.augment = reader, size, optical, augment
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
        colors = range(3) if self.optical and moved.shape[2] == 3 else ()
        moved = jitter_rgb(moved, colors, self.augment.photometric, rng).astype(np.float32, copy=False)
        values = cv2.warpAffine(values, matrix, (crop[1], crop[0]), flags=cv2.INTER_NEAREST)
        return self._sample(moved, values, valid_mask(matrix, self.size, crop), index)

    def preload(self, other: Any = None) -> None:
        """Decode images until the cache is full.

        Args:
            other: another view of the same reader and size, whose cached images are shared.
        """
        self.cached.fill(len(self), None if other is None else other.cached)

    def _sample(self, image: np.ndarray, values: np.ndarray, inside: np.ndarray, index: int) -> Sample:
        planes = np.ascontiguousarray(image.transpose(2, 0, 1))
        planes[:, ~inside] = np.asarray(self.mean, np.float32)[:, None]
        valid = inside & np.isfinite(values)
        label = torch.from_numpy(np.where(valid, values, np.float32(0)))
        return Sample(torch.from_numpy(planes), label, torch.from_numpy(valid), self.reader.ids[index])

    def _base(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image H×W×C, uint8 or float32 without NaN, and map float32 H×W, NaN where not valid, at network scale."""
        sample = self.reader[index]
        image = sample.image.permute(1, 2, 0).numpy()
        image = image.astype(np.uint8 if self.optical else np.float32, order="C")
        if not self.optical:
            # As in deploy.inference.preprocess, a pixel that lacks one channel is filled in all of them.
            has_data = np.isfinite(image).all(axis=2)
            image = filled(image, has_data, np.asarray(self.mean, np.float32), "set")
        values = torch.where(sample.valid, sample.label, torch.nan).numpy().astype(np.float32)
        return resize(image, *self.size), resize_nearest(values, *self.size)
