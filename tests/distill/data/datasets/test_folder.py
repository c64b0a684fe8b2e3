"""A user's folder of images and masks: its splits, classes, channels and kinds of files."""

import json
import time
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from deploy import heartbeat
from deploy.errors import UserError
from deploy.files.images import read_mask, write_png
from deploy.heartbeat import working
from distill.config import DataConfig
from distill.data.datasets import mask_survey
from distill.tasks.registry import open_splits
from tests.distill.data.datasets.dataset_files import (
    HEIGHT,
    WIDTH,
    ids,
    laid_out,
    make_folder,
    open_at,
    photo,
)


def test_folder_with_splits_and_inferred_classes(tmp_path):
    laid_out(tmp_path, ids(0, 2, 255), ids(1))
    splits = open_at("folder", tmp_path)
    assert [info.name for info in splits.classes] == ["class_0", "class_1", "class_2"]
    assert len({info.color for info in splits.classes}) == 3
    assert splits.channels == ("R", "G", "B")
    assert splits.optical
    assert splits.test.ids == ["test0", "test1"]
    assert splits.train[0].label[:3, 0].tolist() == [0, 2, 255]


@pytest.mark.parametrize("named", [False, True])
def test_all_masks_are_read_once_at_the_start_and_told_of(tmp_path, named, capsys, monkeypatch):
    laid_out(tmp_path, ids(0, 1, 255), ids(0, 1, 255))
    if named:
        (tmp_path / "classes.json").write_text('["a", "b"]')
    read = []

    def slowly(path):
        read.append(path)
        time.sleep(0.05)
        return read_mask(path)

    monkeypatch.setattr(mask_survey, "read_mask", slowly)
    monkeypatch.setattr(mask_survey, "working", partial(working, every=0.02))
    open_at("folder", tmp_path)
    masks = sorted(tmp_path.glob("*/masks/*"))
    assert sorted(read) == masks
    assert f"reading the masks … 1 of {len(masks)}" in capsys.readouterr().err
    assert not heartbeat._counts


def test_folder_without_test_uses_val(tmp_path):
    splits = open_at("folder", laid_out(tmp_path, ids(0, 1), test=False))
    assert splits.test.ids == splits.val.ids


def test_folder_splits_by_hash_so_that_new_files_move_no_old_ones(tmp_path):
    stems = [f"scene{number}" for number in range(60)]
    make_folder(tmp_path, dict.fromkeys(stems[:40], ids(0, 1)))
    before = open_at("folder", tmp_path)
    make_folder(tmp_path, dict.fromkeys(stems[40:], ids(0, 1)))
    after = open_splits(DataConfig("folder", root=tmp_path), seed=99)
    parts = [(set(before.train.ids), set(after.train.ids)), (set(before.val.ids), set(after.val.ids))]
    parts.append((set(before.test.ids), set(after.test.ids)))
    assert all(old < new for old, new in parts)
    assert sorted(name for _, new in parts for name in new) == sorted(stems)
    assert 0.5 < len(after.train) / 60 < 0.85


def test_folder_too_small_to_split(tmp_path):
    with pytest.raises(UserError, match="2 images are too few to split at random"):
        open_at("folder", make_folder(tmp_path, {"a": ids(0, 1), "b": ids(0, 1)}))


def test_folder_with_named_classes_values_and_ignored_value(tmp_path):
    laid_out(tmp_path, ids(0, 255, 7))
    classes = {"classes": ["dry", {"name": "wet", "color": [0, 0, 250], "value": 255}], "ignore": 7}
    (tmp_path / "classes.json").write_text(json.dumps(classes))
    splits = open_at("folder", tmp_path)
    assert [info.name for info in splits.classes] == ["dry", "wet"]
    assert splits.classes[1].color == (0, 0, 250)
    assert splits.train[0].label[:3, 0].tolist() == [0, 1, 255]


def test_folder_with_color_masks(tmp_path):
    colors = np.array([(10, 20, 30), (30, 20, 10)], np.uint8)
    laid_out(tmp_path, colors[ids(0, 1)])
    with pytest.raises(
        UserError, match=r"train0\.png: the mask holds colors; write .*classes\.json"
    ) as refused:
        open_at("folder", tmp_path)
    shown = json.loads(str(refused.value).partition("this mask has ")[2])
    assert sorted(one["color"] for one in shown) == [[10, 20, 30], [30, 20, 10]]
    names = [{"name": "a", "color": [10, 20, 30]}, {"name": "b", "color": [30, 20, 10]}]
    (tmp_path / "classes.json").write_text(json.dumps(names))
    assert open_at("folder", tmp_path).val[0].label[:2, 0].tolist() == [0, 1]
    (tmp_path / "classes.json").write_text('["a", "b"]')
    with pytest.raises(UserError, match=r"train0\.png: the mask holds colors, not class ids"):
        open_at("folder", tmp_path).val[0]


def radar(number: int, fill=None) -> np.ndarray:
    image = np.random.default_rng(number).normal(-12, 3, (2, HEIGHT, WIDTH)).astype(np.float32)
    image[:, 0] = np.nan
    if fill is not None:
        image[:] = fill
    return image


def test_folder_of_float_arrays_with_no_data(tmp_path):
    laid_out(tmp_path, ids(0, 1), image=radar, suffix="npy")
    splits = open_at("folder", tmp_path)
    assert splits.channels == ("band_0", "band_1")
    assert not splits.optical
    sample = splits.train[0]
    assert sample.image.shape == (2, HEIGHT, WIDTH)
    assert not sample.valid[0].any()
    assert sample.valid[1:].all()
    names = {"classes": ["dry", "wet"], "channels": ["VV", "VH"]}
    (tmp_path / "classes.json").write_text(json.dumps(names))
    assert open_at("folder", tmp_path).channels == ("VV", "VH")


def test_folder_image_without_any_data(tmp_path):
    laid_out(tmp_path, ids(0, 1), image=lambda n: radar(n, np.nan), suffix="npy")
    with pytest.raises(UserError, match=r"train0\.npy: every pixel is NaN"):
        open_at("folder", tmp_path).train[0]


def test_folder_sixteen_bits_are_not_optical(tmp_path):
    laid_out(tmp_path, ids(0, 1), image=lambda n: photo(n)[..., :1].astype(np.uint16) * 200)
    splits = open_at("folder", tmp_path)
    assert splits.channels == ("grey",)  # codespell:ignore grey
    assert not splits.optical
    assert splits.train[0].image.max() > 255


def test_folder_with_masks_of_one_bit_or_sixteen_or_arrays(tmp_path):
    laid_out(tmp_path, ids(0, 1), ids(0, 1), ids(0, 1))
    masks = tmp_path / "train" / "masks"
    Image.fromarray(ids(0, 1).astype(bool)).save(masks / "train0.png")
    write_png(masks / "train1.png", ids(0, 1).astype(np.uint16))
    (masks / "train2.png").unlink()
    np.save(masks / "train2.npy", ids(0, 1).astype(np.int64))
    train = open_at("folder", tmp_path).train
    assert all(train[number].label[:2, 0].tolist() == [0, 1] for number in range(3))


def test_samples_are_plain_tensors(tmp_path):
    sample = open_at("folder", laid_out(tmp_path, ids(0, 1))).train[0]
    assert (sample.image.dtype, sample.label.dtype, sample.valid.dtype) == (
        torch.float32,
        torch.int64,
        torch.bool,
    )
