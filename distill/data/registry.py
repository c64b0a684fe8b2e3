"""The data sets of segmentation and of grasps by name; `distill.tasks.registry.open_splits` opens all data sets."""

from collections.abc import Callable, Mapping

from distill.config import DataConfig
from distill.data.channels import choose_channels
from distill.data.datasets.camvid import open_camvid
from distill.data.datasets.cityscapes import open_cityscapes
from distill.data.datasets.folder import open_folder
from distill.data.datasets.ombria import open_ombria
from distill.data.datasets.sen1floods11 import open_sen1floods11
from distill.data.datasets.synthetic import open_synthetic
from distill.data.datasets.voc import open_voc
from distill.data.grasp.cornell import open_cornell
from distill.data.grasp.cornell_rgb import open_cornell_rgb
from distill.data.grasp.files import channels_of
from distill.data.grasp.jacquard import open_jacquard
from distill.data.grasp.tabletop import open_tabletop
from distill.data.splits import Splits
from distill.data.unlabeled import with_unlabeled

Opener = Callable[[DataConfig, int], Splits]
"""From configuration and seed to splits."""


def _choosing(open_all: Opener) -> Opener:
    """An opener that adds images without labels to the data of another, and chooses the channels of both."""
    return lambda config, seed: choose_channels(
        with_unlabeled(open_all(config, seed), config), config.channels
    )


SEGMENTATION_DATASETS: Mapping[str, Opener] = {
    "synthetic": _choosing(open_synthetic),
    "camvid": _choosing(open_camvid),
    "voc": _choosing(open_voc),
    "cityscapes": _choosing(open_cityscapes),
    "folder": _choosing(open_folder),
    "ombria": _choosing(open_ombria),
    "sen1floods11": _choosing(open_sen1floods11),
}

GRASP_DATASETS: Mapping[str, Opener] = {
    "tabletop": open_tabletop,
    "cornell": lambda config, seed: open_cornell(config, seed, channels_of(config), config.split_by),
    "cornell_rgb": open_cornell_rgb,
    "jacquard": lambda config, seed: open_jacquard(config, seed, channels_of(config), config.split_by),
}
"""These openers select their channels themselves."""
