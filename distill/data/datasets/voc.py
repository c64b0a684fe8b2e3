"""Pascal VOC 2012 segmentation: 21 classes.

VOCdevkit/VOC2012/ImageSets/Segmentation/{train,val}.txt
VOCdevkit/VOC2012/JPEGImages/STEM.jpg
VOCdevkit/VOC2012/SegmentationClass/STEM.png    palette images, 255 = void
"""

from pathlib import Path

from deploy.bundle.manifest import ClassInfo
from deploy.errors import UserError
from distill.config import DataConfig
from distill.data.datasets.masks import RGB, Legend
from distill.data.datasets.pairs import (
    RGB_CHANNELS,
    Pair,
    PairReader,
    checked_pairs,
    data_folder,
    find_root,
    read_lines,
)
from distill.data.splits import Splits

NAMES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
VOID_COLOR: RGB = (224, 224, 192)
FOLDER = Path("VOCdevkit", "VOC2012")
GET = (
    "pass --data.download, or get VOCtrainval_11-May-2012 of http://host.robots.ox.ac.uk/pascal/VOC/voc2012/"
)


def voc_color(index: int) -> RGB:
    """The color of a class in VOC's palette: its bits go to R, G and B in turn, starting at their highest bits."""
    red = green = blue = 0
    for place in range(8):
        red |= (index >> 3 * place & 1) << 7 - place
        green |= (index >> 3 * place + 1 & 1) << 7 - place
        blue |= (index >> 3 * place + 2 & 1) << 7 - place
    return red, green, blue


CLASSES = tuple(ClassInfo(name, voc_color(index)) for index, name in enumerate(NAMES))


def open_voc(config: DataConfig, seed: int) -> Splits:
    """The published train and val lists. The test labels are not public, so `test` is `val`. `seed` is not used.

    With `config.download`, torchvision first downloads the data (2 GB) into the root, unless it is there already.

    Raises:
        UserError: files are missing, or the download fails.
    """
    root = _download(config) if config.download else find_root(config, GET)
    train, val = (_read_split(root / FOLDER, split) for split in ("train", "val"))
    return Splits("voc", CLASSES, RGB_CHANNELS, optical=True, train=train, val=val, test=val)


def _read_split(folder: Path, split: str) -> PairReader:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; {GET}")
    listing = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
    pairs = (
        Pair(stem, folder / "JPEGImages" / f"{stem}.jpg", folder / "SegmentationClass" / f"{stem}.png")
        for stem in read_lines(listing)
    )
    legend = Legend(
        values=tuple(range(len(CLASSES))),
        colors=tuple(info.color for info in CLASSES),
        ignore_colors=(VOID_COLOR,),
    )
    return PairReader(checked_pairs(pairs, listing), legend)


def _download(config: DataConfig) -> Path:
    from torchvision.datasets import VOCSegmentation  # start-up time: only a download needs it

    root = data_folder(config, GET)
    if not (root / FOLDER).is_dir():
        try:
            root.mkdir(parents=True, exist_ok=True)
            VOCSegmentation(str(root), year="2012", image_set="train", download=True)
        except (OSError, RuntimeError) as error:  # no network, disk full, broken archive
            raise UserError(f"{root}: VOC 2012 could not be downloaded ({error}); {GET}") from error
    return root
