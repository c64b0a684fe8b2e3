"""Which images a run uses, and how training samples vary."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deploy.bundle.pixel_scale import ScaleName
from distill.field_checks import at_least, require

MIN_SIDE = 8
"""Smallest height and width of a network input, in pixels."""


@dataclass(frozen=True)
class DataConfig:
    """Which labeled images to use and at which size the network sees them."""

    name: str
    """Name of the data set, such as `folder`, `camvid` or `tabletop`; the error for an unknown name lists all."""
    root: Path | None = None
    """Folder of the data set; default: `$EDGEDISTILL_DATA/<name>`. Not used by built-in data sets."""
    channels: tuple[str, ...] = ()
    """Channels to use, by name or position, such as `after` or `0 1`; default: all.
    For grasp data: `depth` (the default), `rgb` or `rgbd`; `cornell_rgb` has only color."""
    split_by: Literal["object", "image"] = "object"
    """How Cornell and Jacquard are split: by object (no object is in two splits), or by image at random."""
    size: tuple[int, int] = (96, 96)
    """Height and width of the network input, in pixels."""
    resize: Literal["stretch", "tile"] = "stretch"
    """What happens to an image of another size: it is resized, or tiled by a sliding window."""
    normalize: Literal["set", "image", "patch"] = "set"
    """Mean and deviation that normalize the channels: of the training split, each image, or each patch that is run.
    Other values than `set` are for segmentation only; see `deploy.inference.normalize`."""
    scale: ScaleName = "linear"
    """What the network takes of values with long tails: pixels as they are; `log`, their logarithms, for amplitudes
    (values below 1/10000 of a channel's mean count as that); or `percentile`, pixels held between the 2nd and the 98th
    percentile of their channel. See `distill.data.scaling`. Not for grasps."""
    unlabeled: Path | None = None
    """Folder of images without labels, from which the student learns what the teacher sees (docs/unlabeled.md)."""
    unlabeled_share: float = 0.5
    """Share of the images of each of the student's batches that have no labels, where there are such images."""
    labels: int = 0
    """Use the labels of so many training images only, chosen by a hash of their names; the others count as images
    without labels. 0 = all."""
    foreground: int | None = None
    """For `folder`: the number of the second of two classes in the masks, such as 255 in masks of 0 and 255."""
    allow_absent_classes: bool = False
    """Train although a class has no pixel in the training split."""
    download: bool = False
    """Let torchvision download the data set if it can (VOC)."""
    synthetic_counts: tuple[int, int, int] = (256, 48, 64)
    """Number of scenes in the train, val and test splits of built-in data sets."""
    cache: bool = True
    """Keep decoded training images (at network scale) in memory."""

    def __post_init__(self) -> None:
        at_least(MIN_SIDE, "data", "size", min(self.size))
        at_least(1, "data", "synthetic-counts", min(self.synthetic_counts))
        at_least(0, "data", "labels", self.labels)
        share = self.unlabeled_share
        require(0 < share < 1, "data", "unlabeled-share", f"{share}: must be above 0 and below 1")
        if self.foreground is not None:
            at_least(1, "data", "foreground", self.foreground)
            require(
                self.name == "folder",
                "data",
                "foreground",
                f"{self.foreground}: is for the data set `folder`",
            )


@dataclass(frozen=True)
class AugmentConfig:
    """Random augmentation of training samples: image, label and valid mask are transformed together."""

    crop: tuple[int, int] = (96, 96)
    """Height and width of a training crop, in pixels."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Range of the random scale factor applied before the crop."""
    balance: float = 0.0
    """Fraction of crops taken around a class that is drawn uniformly, in any image that contains it
    (class-uniform sampling, as in arXiv:1812.01593); 0 = all crops at random. Segmentation only."""
    max_no_data: float = 1.0
    """Largest fraction of a crop that may be invalid: no data, void, or outside the image.
    Other crops are drawn again, at most ten times; 1 = accept any crop. Segmentation only."""
    rotate: float = 0.0
    """Largest random rotation in either direction, in degrees; 180 = any angle. Not for segmentation."""
    flip: bool = True
    """Flip left-right with probability 1/2."""
    vertical_flip: bool = False
    """Flip top-bottom with probability 1/2 (top-down views only)."""
    photometric: float = 0.3
    """Strength of brightness, contrast and saturation jitter, in 0..1; optical images only, 0 = off."""

    def __post_init__(self) -> None:
        low, high = self.scale
        require(min(self.crop) >= 1, "augment", "crop", f"{self.crop}: sides must be positive")
        require(
            0 < low <= high < math.inf,
            "augment",
            "scale",
            f"{self.scale}: give the smaller factor first, above 0",
        )
        require(0 <= self.rotate <= 180, "augment", "rotate", f"{self.rotate}: must be in 0..180 degrees")
        require(0 <= self.photometric <= 1, "augment", "photometric", f"{self.photometric}: must be in 0..1")
        for name, share in (("balance", self.balance), ("max-no-data", self.max_no_data)):
            require(0 <= share <= 1, "augment", name, f"{share}: must be a fraction in 0..1")
