"""Cityscapes with fine annotations: 19 classes, frames of 2048×1024.

leftImg8bit/{train,val}/CITY/STEM_leftImg8bit.png
gtFine/{train,val}/CITY/STEM_gtFine_labelIds.png
"""

from pathlib import Path

from deploy.bundle.manifest import ClassInfo
from deploy.errors import UserError
from distill.config import DataConfig
from distill.data.datasets.masks import Legend
from distill.data.datasets.pairs import RGB_CHANNELS, Pair, PairReader, checked_pairs, find_root
from distill.data.splits import Splits

CLASSES = (
    ClassInfo("road", (128, 64, 128)),
    ClassInfo("sidewalk", (244, 35, 232)),
    ClassInfo("building", (70, 70, 70)),
    ClassInfo("wall", (102, 102, 156)),
    ClassInfo("fence", (190, 153, 153)),
    ClassInfo("pole", (153, 153, 153)),
    ClassInfo("traffic light", (250, 170, 30)),
    ClassInfo("traffic sign", (220, 220, 0)),
    ClassInfo("vegetation", (107, 142, 35)),
    ClassInfo("terrain", (152, 251, 152)),
    ClassInfo("sky", (70, 130, 180)),
    ClassInfo("person", (220, 20, 60)),
    ClassInfo("rider", (255, 0, 0)),
    ClassInfo("car", (0, 0, 142)),
    ClassInfo("truck", (0, 0, 70)),
    ClassInfo("bus", (0, 60, 100)),
    ClassInfo("train", (0, 80, 100)),
    ClassInfo("motorcycle", (0, 0, 230)),
    ClassInfo("bicycle", (119, 11, 32)),
)
"""The evaluated classes in the order of their train ids, with the official colors."""

LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""The id of each class in the label files; the other ids up to 33 are not evaluated."""

IMAGE_END, LABEL_END = "_leftImg8bit.png", "_gtFine_labelIds.png"
GET = (
    "register at https://www.cityscapes-dataset.com and unpack leftImg8bit_trainvaltest.zip and "
    "gtFine_trainvaltest.zip into it"
)


def open_cityscapes(config: DataConfig, seed: int) -> Splits:
    """The published train and val cities. The test labels are not public, so `test` is `val`. `seed` is not used.

    Raises:
        UserError: files are missing.
    """
    root = find_root(config, GET)
    train, val = (_read_split(root, split) for split in ("train", "val"))
    return Splits("cityscapes", CLASSES, RGB_CHANNELS, optical=True, train=train, val=val, test=val)


def _read_split(root: Path, split: str) -> PairReader:
    folder = root / "leftImg8bit" / split
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; {GET}")
    pairs = (_pair(root, split, image) for image in sorted(folder.glob(f"*/*{IMAGE_END}")))
    ignored = tuple(value for value in range(34) if value not in LABEL_IDS)
    return PairReader(checked_pairs(pairs, folder), Legend(values=LABEL_IDS, ignore=ignored))


def _pair(root: Path, split: str, image: Path) -> Pair:
    stem = image.name.removesuffix(IMAGE_END)
    return Pair(stem, image, root / "gtFine" / split / image.parent.name / f"{stem}{LABEL_END}")
