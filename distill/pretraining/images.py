"""The images of a pre-training, as a data set without classes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from distill.data.datasets.folder import name_channels
from distill.data.datasets.image_folder import find_images, read_files
from distill.data.readers import Joined
from distill.data.splits import Splits
from distill.data.unlabeled import ImageReader


def open_images(folders: Sequence[Path], channels: Sequence[str]) -> Splits:
    """All images of some folders as a training split without labels; the other splits are empty.

    Number and type of the channels are those of the first image.

    Args:
        folders: one or more, as `distill.data.datasets.image_folder` describes them.
        channels: names of the channels; empty for R, G and B, or numbers.

    Raises:
        UserError: a folder holds no image, or the first image cannot be read or has other channels than are named.
    """
    found = [find_images(folder, channels) for folder in folders]
    first = read_files(found[0][0])
    names = name_channels(tuple(channels) or None, first.shape[2], found[0][0].paths[0])
    optical = first.dtype == np.uint8
    readers = [
        ImageReader(images, names, optical, name) for images, name in zip(found, _names(folders), strict=True)
    ]
    train, nothing = readers[0] if len(readers) == 1 else Joined(tuple(readers)), Joined(())
    return Splits("images", (), names, optical, train=train, val=nothing, test=nothing)


def _names(folders: Sequence[Path]) -> list[str]:
    """A different name for each folder: its own, or with its place where several have the same."""
    own = [folder.resolve().name for folder in folders]
    return [name if own.count(name) == 1 else f"{name}-{place + 1}" for place, name in enumerate(own)]
