"""Folders of images without labels.

FOLDER/NAME.*  or  FOLDER/images/NAME.*              each with all channels, or
FOLDER/before/NAME.*  FOLDER/after/NAME.*  …         a folder of one-channel images for each channel, by its name
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.errors import UserError
from deploy.files.images import list_images, read_image
from distill.data.datasets.pairing import warn_of_others


@dataclass(frozen=True)
class ImageFiles:
    """An image."""

    name: str
    """Of its file; with a file for each channel, of the first."""
    paths: tuple[Path, ...]
    """One file with all channels, or one for each channel."""


def find_images(folder: Path, channels: Sequence[str]) -> tuple[ImageFiles, ...]:
    """The images of a folder, sorted by name. Warns of files of kinds that are not read.

    Args:
        folder: laid out as above.
        channels: names of the channels that its images should have.

    Raises:
        UserError: there is no such folder, it holds no image, or a channel of an image has no file.
    """
    parts = [folder / channel for channel in channels]
    if len(parts) > 1 and all(part.is_dir() for part in parts):
        return tuple(_by_channel(parts))
    folder = folder / "images" if (folder / "images").is_dir() else folder
    paths = list_images(folder)
    warn_of_others(folder)
    return tuple(ImageFiles(path.name, (path,)) for path in paths)


def _by_channel(folders: Sequence[Path]) -> Iterator[ImageFiles]:
    first, *others = ({path.stem: path for path in list_images(folder)} for folder in folders)
    for stem, path in first.items():
        for folder, files in zip(folders[1:], others, strict=True):
            if stem not in files:
                raise UserError(f"{folder / path.name}: no such image, though {path} is one of its channels")
        yield ImageFiles(path.name, (path, *(files[stem] for files in others)))


def read_files(files: ImageFiles) -> np.ndarray:
    """The image H×W×C, as `deploy.files.images.read_image` returns it.

    Raises:
        UserError: a file cannot be read, or files of channels differ in size or type, or hold several channels.
    """
    first, *others = (read_image(path) for path in files.paths)
    if not others:
        return first
    for path, plane in zip(files.paths, (first, *others), strict=True):
        if plane.shape != (*first.shape[:2], 1) or plane.dtype != first.dtype:
            found = f"{'×'.join(map(str, plane.shape))} of {plane.dtype}"
            wanted = f"{first.shape[0]}×{first.shape[1]}×1 of {first.dtype}, as in {files.paths[0]}"
            raise UserError(f"{path}: is one channel of an image, but has {found}; it should have {wanted}")
    return np.concatenate([first, *others], axis=2)
