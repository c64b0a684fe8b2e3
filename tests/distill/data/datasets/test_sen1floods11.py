"""Sen1Floods11: its splits and labels, and one line for each mistake in its files."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from deploy.errors import UserError
from distill.config import DataConfig
from distill.data.channels import choose_channels
from distill.data.sample import IGNORE
from distill.tasks.registry import open_splits
from tests.deploy.files.tiff_files import bands, write_tiff


def sen1floods(root: Path) -> None:
    for index, name in enumerate(("train", "valid", "test")):
        chip = f"Spain_{index}"
        image = bands(2) - np.float32(10)
        image[0, :2] = np.nan
        label = np.tile(np.array([0, 1, -1, 1], np.int16), (6, 2))
        write_tiff(root / "S1Hand" / f"{chip}_S1Hand.tif", image)
        write_tiff(root / "LabelHand" / f"{chip}_LabelHand.tif", label[..., None])
        (root / f"flood_{name}_data.csv").write_text(f"{chip}_S1Hand.tif,{chip}_LabelHand.tif\n")


def test_sen1floods11(tiff_library, tmp_path):
    sen1floods(tmp_path)
    splits = open_splits(DataConfig("sen1floods11", root=tmp_path))
    assert [reader.ids for reader in (splits.train, splits.val, splits.test)] == [
        (f"Spain_{i}",) for i in range(3)
    ]
    sample = splits.val[0]
    assert sample.label[1].tolist() == [0, 1, IGNORE, 1] * 2
    assert sample.label[0].tolist() == [IGNORE, IGNORE, IGNORE, 1, 0, 1, IGNORE, 1]
    torch.testing.assert_close(sample.valid, sample.label != IGNORE)
    assert choose_channels(splits, ["VH"]).train[0].image.shape == (1, 6, 8)


def test_sen1floods11_with_a_chip_missing(tmp_path):
    sen1floods(tmp_path)
    (tmp_path / "LabelHand" / "Spain_1_LabelHand.tif").unlink()
    with pytest.raises(UserError, match=r"image .*Spain_1_S1Hand\.tif has no mask"):
        open_splits(DataConfig("sen1floods11", root=tmp_path))
    (tmp_path / "flood_valid_data.csv").write_text("Spain_2\n")
    with pytest.raises(UserError, match="a row is 'Spain_2'"):
        open_splits(DataConfig("sen1floods11", root=tmp_path))


@pytest.mark.realdata("sen1floods11_chip")
def test_the_published_chip(tiff_library, tmp_path):
    folder = Path(os.environ["EDGEDISTILL_DATA"]) / "sen1floods11_chip"
    for kind in ("S1Hand", "LabelHand"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / f"Spain_7370579_{kind}.tif").symlink_to(folder / f"Spain_7370579_{kind}.tif")
    for name in ("train", "valid", "test"):
        (tmp_path / f"flood_{name}_data.csv").write_text(
            "Spain_7370579_S1Hand.tif,Spain_7370579_LabelHand.tif\n"
        )
    sample = open_splits(DataConfig("sen1floods11", root=tmp_path)).train[0]
    assert sample.image.shape == (2, 512, 512)
    assert (~sample.valid).sum() == 99  # as its README counts
    assert -60 < float(sample.image.min()) < float(sample.image.max()) < 40
