"""The data sets by name."""

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

OPENERS = {
    "synthetic": open_synthetic,
    "camvid": open_camvid,
    "voc": open_voc,
    "cityscapes": open_cityscapes,
    "folder": open_folder,
    "ombria": open_ombria,
    "sen1floods11": open_sen1floods11,
    "tabletop": open_tabletop,
    "cornell": lambda config, seed: open_cornell(config, seed, channels_of(config), config.split_by),
    "cornell_rgb": open_cornell_rgb,
    "jacquard": lambda config, seed: open_jacquard(config, seed, channels_of(config), config.split_by),
}


def open_splits(config: DataConfig, seed: int = 0) -> Splits:
    """Open the data set of `config`. `seed` picks the synthetic scenes; the splits of real data never depend on it.

    Raises UserError when the data is missing (saying where to get it) or not laid out as expected.
    """
    splits = OPENERS[config.name](config, seed)
    return splits if splits.task == "grasp" else choose_channels(splits, config.channels)
