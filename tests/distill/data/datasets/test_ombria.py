"""OMBRIA: its splits, and one line for each mistake in its files."""

import numpy as np
import pytest

from deploy.errors import UserError
from deploy.files.images import write_png
from distill.config import DataConfig
from distill.tasks.registry import open_splits
from tests.distill.data.datasets.raster_folders import ombria


def test_ombria_keeps_a_tenth_of_train_for_validation(tmp_path):
    ombria(tmp_path)
    splits = open_splits(DataConfig("ombria", root=tmp_path))
    assert (len(splits.train), len(splits.val), len(splits.test)) == (18, 2, 3)
    assert not set(splits.train.ids) & set(splits.val.ids)
    assert splits.channels == ("before", "after")
    assert open_splits(DataConfig("ombria", root=tmp_path), seed=7).val.ids == splits.val.ids
    assert splits.test[0].valid.all()


def test_ombria_misses_a_file_or_has_another_size(tmp_path):
    ombria(tmp_path)
    write_png(tmp_path / "test" / "after" / "0001.png", np.zeros((3, 8), np.uint8))
    splits = open_splits(DataConfig("ombria", root=tmp_path))
    with pytest.raises(UserError, match=r"0001\.png: before and after are 6×8 and 3×8 pixels"):
        splits.test[1]
    (tmp_path / "test" / "before" / "0002.png").unlink()
    with pytest.raises(UserError, match=r"before/0002\.png: no such image"):
        open_splits(DataConfig("ombria", root=tmp_path))


@pytest.mark.realdata("ombria")
def test_the_published_tiles():
    splits = open_splits(DataConfig("ombria"))
    assert (len(splits.train), len(splits.val), len(splits.test)) == (562, 62, 70)
    assert splits.train[0].image.shape == (2, 256, 256)
