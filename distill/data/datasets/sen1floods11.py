"""Sen1Floods11, hand-labeled: Sentinel-1 chips of 512×512, VV and VH in dB (Bonafilia et al., CVPR Workshops 2020).

S1Hand/CHIP_S1Hand.tif          two bands of float32, NaN where there is no data
LabelHand/CHIP_LabelHand.tif    int16: -1 = not labeled, 0 = dry, 1 = water
flood_{train,valid,test}_data.csv    as published: each row names an image and a label

The files are those of v1.1/data/flood_events/HandLabeled and v1.1/splits/flood_handlabeled; the lists may lie in the
folder itself or in splits/ below it.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.bundle.manifest import ClassInfo
from deploy.errors import UserError
from deploy.files.tiff import read_bands
from distill.config import DataConfig
from distill.data.datasets.pairs import Pair, checked_pairs, find_root, read_lines
from distill.data.sample import IGNORE, Sample, make_sample
from distill.data.splits import Splits

CLASSES = (ClassInfo("dry", (142, 125, 87)), ClassInfo("water", (38, 110, 200)))
CHANNELS = ("VV", "VH")
LISTS = {"train": "flood_train_data.csv", "val": "flood_valid_data.csv", "test": "flood_test_data.csv"}
GET = "get gs://sen1floods11/v1.1 (S1Hand, LabelHand and the lists of splits/flood_handlabeled)"


@dataclass(frozen=True)
class Sen1FloodsReader:
    """The chips of one list."""

    pairs: tuple[Pair, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        """Such as "Spain_7370579"."""
        return tuple(pair.id for pair in self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def files(self, index: int) -> tuple[Path, ...]:
        """The files of a sample: image and labels."""
        return self.pairs[index].image, self.pairs[index].mask

    def __getitem__(self, index: int) -> Sample:
        pair = self.pairs[index]
        image = read_bands(pair.image)
        if image.shape[2] != len(CHANNELS) or image.dtype != np.float32:
            found = f"{image.shape[2]} band(s) of {image.dtype}"
            raise UserError(f"{pair.image}: holds {found}, should be VV and VH in dB as float32")
        label = read_bands(pair.mask)[..., 0].astype(np.float32)
        unknown = np.isnan(label) | (label == -1)
        ids = np.where(unknown, IGNORE, label).astype(np.int64)
        return make_sample(image, ids, id=pair.id, num_classes=len(CLASSES), source=pair.mask)


def open_sen1floods11(config: DataConfig, seed: int) -> Splits:
    """The published split. `seed` is not used.

    Raises:
        UserError: files are missing, or a list is malformed.
    """
    root = find_root(config, GET)
    train, val, test = (_read_list(root, name) for name in LISTS.values())
    return Splits("sen1floods11", CLASSES, CHANNELS, optical=False, train=train, val=val, test=test)


def _read_list(root: Path, name: str) -> Sen1FloodsReader:
    path = next((p for p in (root / name, root / "splits" / name) if p.is_file()), root / name)
    pairs = []
    for row in csv.reader(read_lines(path)):
        if len(row) != 2:
            raise UserError(
                f"{path}: a row is {','.join(row)!r}, should be the names of an image and a label"
            )
        image, label = (Path(cell.strip()).name for cell in row)
        chip = image.removesuffix(".tif").removesuffix("_S1Hand")
        pairs.append(Pair(chip, root / "S1Hand" / image, root / "LabelHand" / label))
    return Sen1FloodsReader(checked_pairs(pairs, path))
