"""Cityscapes: label ids become train ids, and one line for each mistake in its files."""

from pathlib import Path

import numpy as np
import pytest

from deploy.errors import UserError
from deploy.files.images import write_png
from tests.distill.data.datasets.dataset_files import ids, open_at, photo


def make_cityscapes(root: Path, label: np.ndarray) -> None:
    for split, city in (("train", "ulm"), ("train", "bonn"), ("val", "lindau")):
        stem = f"{city}_000000_000019"
        write_png(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", photo())
        write_png(root / "gtFine" / split / city / f"{stem}_gtFine_labelIds.png", label)


def test_cityscapes_maps_label_ids_to_train_ids(tmp_path):
    make_cityscapes(tmp_path, ids(7, 33, 0, 30, 8, 255))
    splits = open_at("cityscapes", tmp_path)
    assert (len(splits.train), len(splits.val)) == (2, 1)
    assert splits.test is splits.val
    assert len(splits.classes) == 19
    assert splits.train.ids == ["bonn_000000_000019", "ulm_000000_000019"]
    assert splits.train[0].label[:, 0].tolist() == [0, 18, 255, 255, 1, 255]


def test_cityscapes_mistakes(tmp_path):
    make_cityscapes(tmp_path, ids(7, 34))
    with pytest.raises(UserError, match=r"labelIds\.png: label id 34 is out of range for 19 classes"):
        open_at("cityscapes", tmp_path).train[0]
    next((tmp_path / "gtFine" / "val").rglob("*.png")).unlink()
    with pytest.raises(UserError, match=r"lindau_000000_000019_leftImg8bit\.png has no mask"):
        open_at("cityscapes", tmp_path)
