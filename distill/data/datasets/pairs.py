"""Data sets stored as image files and label files: locating, listing and reading them."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.errors import UserError
from deploy.files.decoding import check_order
from deploy.files.images import read_image, read_mask
from deploy.files.tiff import band_names
from distill.config import DataConfig
from distill.data.datasets.masks import Legend
from distill.data.sample import Sample, make_sample

RGB_CHANNELS = ("R", "G", "B")
"""Channel names of color images."""


@dataclass(frozen=True)
class Pair:
    """One image file and its label file."""

    id: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class PairReader:
    """Reads pairs of files; every image must have `channels` channels, and be uint8 if and only if `optical`."""

    pairs: tuple[Pair, ...]
    legend: Legend
    channels: int = 3
    optical: bool = True
    names: tuple[str, ...] | None = None
    """Of the channels, if TIFFs whose bands have these names must have them in this order."""

    @property
    def ids(self) -> Sequence[str]:
        """The id of each pair."""
        return [pair.id for pair in self.pairs]

    def __len__(self) -> int:
        return len(self.pairs)

    def files(self, index: int) -> tuple[Path, ...]:
        """The files of a sample: image and labels."""
        return self.pairs[index].image, self.pairs[index].mask

    def __getitem__(self, index: int) -> Sample:
        pair = self.pairs[index]
        mask = read_mask(pair.mask)
        image = read_image(pair.image, size=mask.shape[:2])
        check_image(image, pair.image, self.channels, self.optical, self.names)
        label = self.legend.ids(mask, pair.mask)
        return make_sample(image, label, id=pair.id, num_classes=len(self.legend.values), source=pair.mask)


def check_image(
    image: np.ndarray, path: Path, channels: int, optical: bool, names: Sequence[str] | None = None
) -> None:
    """Raise `UserError` unless an image H×W×C has that many channels, is uint8 just if `optical`, and has data.

    A TIFF whose bands have the `names` of the channels must have them in their order.
    """
    if names is not None:
        check_order(path, band_names(path) or (), names)
    if image.shape[2] != channels:
        raise UserError(f"{path}: has {image.shape[2]} channels, but this data set has {channels}")
    if (image.dtype == np.uint8) != optical:
        expected = "uint8" if optical else "uint16 or float32"
        raise UserError(f"{path}: pixels are {image.dtype}, but this data set has {expected} images")
    if np.issubdtype(image.dtype, np.floating) and np.isnan(image).all():
        raise UserError(f"{path}: every pixel is NaN; remove the file or write it again")


def checked_pairs(pairs: Iterable[Pair], where: Path) -> tuple[Pair, ...]:
    """Check that there are pairs and that all their files exist.

    Args:
        pairs: the pairs.
        where: the list or folder that they come from, for error messages.

    Returns:
        The pairs as a tuple.

    Raises:
        UserError: there are no pairs, or a file is missing.
    """
    checked = tuple(pairs)
    if not checked:
        raise UserError(f"{where}: lists no images")
    for pair in checked:
        if not pair.image.is_file():
            raise UserError(f"{pair.image}: no such image, though {where} lists it")
        if not pair.mask.is_file():
            raise UserError(f"image {pair.image} has no mask: {pair.mask} does not exist")
    return checked


def data_folder(config: DataConfig, where_to_get: str) -> Path:
    """Where a data set should be: `config.root`, or `$EDGEDISTILL_DATA/<name>`.

    Args:
        config: name and root of the data set.
        where_to_get: the hint that ends error messages.

    Raises:
        UserError: neither is set.
    """
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
    """The folder of a data set (see `data_folder`).

    Raises:
        UserError: no folder is given, or it does not exist.
    """
    root = data_folder(config, where_to_get)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; {where_to_get}")
    return root


def read_lines(path: Path) -> list[str]:
    """The lines of a list of files, stripped; blank lines are skipped.

    Raises:
        UserError: the file is missing or not text.
    """
    lines = read_text(path, "it lists the images of a split").splitlines()
    return [line.strip() for line in lines if line.strip()]


def read_text(path: Path, purpose: str = "") -> str:
    """The text of a UTF-8 file.

    Args:
        path: the file.
        purpose: what the file is for, for the message if it is missing.

    Raises:
        UserError: the file is missing or not text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file{purpose and f'; {purpose}'}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file; get it again") from error
