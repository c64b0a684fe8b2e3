"""Data sets kept as image files beside label files."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.errors import UserError
from deploy.files.images import read_mask
from deploy.files.tiff import read_bands
from distill.config import DataConfig
from distill.data.datasets.masks import Legend
from distill.data.sample import Sample, make_sample


@dataclass(frozen=True)
class Pair:
    """One image file and its label file."""

    id: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class PairReader:
    """Reads pairs of files; every image must have `channels` channels, and be uint8 exactly if `optical`."""

    pairs: tuple[Pair, ...]
    legend: Legend
    channels: int = 3
    optical: bool = True

    @property
    def ids(self) -> Sequence[str]:
        """The id of each pair."""
        return [pair.id for pair in self.pairs]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        pair = self.pairs[index]
        image = read_bands(pair.image)
        self._check(image, pair.image)
        label = self.legend.ids(read_mask(pair.mask), pair.mask)
        return make_sample(image, label, id=pair.id, num_classes=len(self.legend.values), source=pair.mask)

    def _check(self, image: np.ndarray, path: Path) -> None:
        if image.shape[2] != self.channels:
            raise UserError(f"{path}: has {image.shape[2]} channels, but this data set has {self.channels}")
        if (image.dtype == np.uint8) != self.optical:
            expected = "uint8" if self.optical else "uint16 or float32"
            raise UserError(f"{path}: pixels are {image.dtype}, but this data set has {expected} images")
        if np.issubdtype(image.dtype, np.floating) and np.isnan(image).all():
            raise UserError(f"{path}: every pixel is NaN; remove the file or write it again")


def checked_pairs(pairs: Iterable[Pair], where: Path) -> tuple[Pair, ...]:
    """The pairs, if there are any and all their files exist; otherwise a UserError that names what is missing."""
    kept = tuple(pairs)
    if not kept:
        raise UserError(f"{where}: lists no images")
    for pair in kept:
        if not pair.image.is_file():
            raise UserError(f"{pair.image}: no such image, though {where} lists it")
        if not pair.mask.is_file():
            raise UserError(f"image {pair.image} has no mask: {pair.mask} does not exist")
    return kept


def data_folder(config: DataConfig, where_to_get: str) -> Path:
    """Where a data set should be: `config.root`, or `$EDGEDISTILL_DATA/<name>`; UserError when neither is given."""
    if config.root is not None:
        return Path(config.root)
    base = os.environ.get("EDGEDISTILL_DATA")
    if not base:
        raise UserError(
            f"where is {config.name}? Give --data.root FOLDER, or set EDGEDISTILL_DATA to the folder that holds "
            f"{config.name}/; {where_to_get}"
        )
    return Path(base) / config.name


def find_root(config: DataConfig, where_to_get: str) -> Path:
    """The folder of a data set; UserError with `where_to_get` when there is none."""
    root = data_folder(config, where_to_get)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; {where_to_get}")
    return root


def read_lines(path: Path) -> list[str]:
    """The lines of a list of files, without blanks; UserError when it is missing or not text."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; it lists the images of a split") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file") from error
    return [line.strip() for line in lines if line.strip()]
