"""OMBRIA, Sentinel-1: radar images before and after floods (Drakonakis et al., IEEE JSTARS 2022).

{train,test}/before/ID.png    8-bit gray, 256×256, each tile stretched to 0..255
{train,test}/after/ID.png
{train,test}/mask/ID.png      0 = dry, else flooded

The test split is the published one. No validation split is published, so it is the tenth of the training tiles whose
names have the lowest hashes: 62 of 624. No pixel is marked as no data: 0 is the darkest value of its tile.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.bundle.manifest import ClassInfo
from deploy.errors import UserError
from deploy.files.images import list_images, read_image, read_mask
from distill.config import DataConfig
from distill.data.datasets.pairs import find_root
from distill.data.sample import Sample, make_sample
from distill.data.splits import Splits

CLASSES = (ClassInfo("dry", (142, 125, 87)), ClassInfo("flooded", (38, 110, 200)))
CHANNELS = ("before", "after")
VALIDATION = 0.1
GET = "get the folder OmbriaS1 of https://github.com/geodrak/OMBRIA"


@dataclass(frozen=True)
class OmbriaReader:
    """Some tiles of a folder with before/, after/ and mask/."""

    folder: Path
    ids: tuple[str, ...]
    """Such as "0001"."""

    def __len__(self) -> int:
        return len(self.ids)

    def files(self, index: int) -> tuple[Path, ...]:
        """The files of a sample: both images, and the labels."""
        return tuple(self.folder / kind / f"{self.ids[index]}.png" for kind in (*CHANNELS, "mask"))

    def __getitem__(self, index: int) -> Sample:
        name = self.ids[index]
        paths = [self.folder / channel / f"{name}.png" for channel in CHANNELS]
        planes = [_gray(path) for path in paths]
        if planes[0].shape != planes[1].shape:
            sizes = " and ".join(f"{plane.shape[0]}×{plane.shape[1]}" for plane in planes)
            raise UserError(f"{paths[1]}: before and after are {sizes} pixels, should be of one size")
        mask = self.folder / "mask" / f"{name}.png"
        label = (read_mask(mask) != 0).astype(np.uint8)
        if label.ndim != 2:
            raise UserError(f"{mask}: holds colors, should hold 0 and 1")
        return make_sample(
            np.concatenate(planes, axis=2), label, id=name, num_classes=len(CLASSES), source=mask
        )


def open_ombria(config: DataConfig, seed: int) -> Splits:
    """Images with the channels before and after. `seed` is not used: the split is the same in every run.

    Raises:
        UserError: files are missing, or too few to split.
    """
    root = find_root(config, GET)
    known, test = _ids(root / "train"), _ids(root / "test")
    count = max(1, round(VALIDATION * len(known)))
    held_out = set(sorted(known, key=lambda name: hashlib.sha256(name.encode()).digest())[:count])
    train = tuple(name for name in known if name not in held_out)
    val = tuple(name for name in known if name in held_out)
    if not train:
        raise UserError(f"{root / 'train'}: one tile is too few to train and validate; {GET}")
    return Splits(
        "ombria",
        CLASSES,
        CHANNELS,
        optical=True,
        train=OmbriaReader(root / "train", train),
        val=OmbriaReader(root / "train", val),
        test=OmbriaReader(root / "test", test),
    )


def _ids(folder: Path) -> tuple[str, ...]:
    """Names of the tiles, after a check that all their files exist."""
    names = tuple(path.stem for path in list_images(folder / "mask"))
    for name in names:
        for channel in CHANNELS:
            if not (folder / channel / f"{name}.png").is_file():
                raise UserError(
                    f"{folder / channel / name}.png: no such image, though mask/ has the tile; {GET}"
                )
    return names


def _gray(path: Path) -> np.ndarray:
    """Read an 8-bit gray image as H×W×1."""
    image = read_image(path)
    if image.shape[2] != 1 or image.dtype != np.uint8:
        raise UserError(f"{path}: holds {image.shape[2]} channel(s) of {image.dtype}, should be 8-bit gray")
    return image
