"""A user's folder of GeoTIFFs, and one line for each mistake in it."""

import numpy as np
import pytest
import torch

from deploy.errors import UserError
from deploy.files.images import write_png
from distill.config import DataConfig
from distill.data.stats import compute_stats
from distill.tasks.registry import open_splits
from tests.deploy.files.tiff_files import write_named
from tests.distill.data.datasets.raster_folders import folder_of


def test_a_folder_of_geotiffs(tmp_path):
    folder_of(tmp_path)
    splits = open_splits(DataConfig("folder", root=tmp_path))
    assert splits.channels == ("R", "G", "B")
    assert not splits.optical
    sample = splits.train[1]
    assert sample.image.shape == (3, 6, 8)
    assert not sample.valid[0, 0]
    assert sample.valid.sum() == 47
    assert torch.isnan(sample.image[:, 0, 0]).all()


def test_channels_are_chosen_by_the_names_of_the_file(tiff_library, tmp_path):
    for split in ("train", "val"):
        write_named(tmp_path / split / "images" / "a.tif", ("VV", "VH"))
        (tmp_path / split / "masks").mkdir()
        write_png(tmp_path / split / "masks" / "a.png", np.arange(64, dtype=np.uint8).reshape(8, 8) % 2)
    config = DataConfig("folder", root=tmp_path, channels=("VH",))
    assert open_splits(config, seed=0).channels == ("VH",)


def test_an_unreadable_tile_is_named_before_training(tmp_path):
    folder_of(tmp_path)
    (tmp_path / "train" / "images" / "2.tif").write_bytes(b"II*\0")
    splits = open_splits(DataConfig("folder", root=tmp_path))
    with pytest.raises(UserError, match=r"2\.tif: corrupt image, cannot be read as TIFF"):
        compute_stats(splits.train, 2)  # what a run does first


def test_a_label_raster_of_another_shape(tmp_path):
    folder_of(tmp_path, label=np.array([[0, 1]], np.uint8))
    splits = open_splits(DataConfig("folder", root=tmp_path))
    with pytest.raises(UserError, match=r"0\.png: the label is 1×2 pixels but the image of 0 is 6×8"):
        splits.train[0]


def test_a_single_class_in_the_data_is_refused(tmp_path):
    folder_of(tmp_path, label=np.zeros((6, 8), np.uint8))
    with pytest.raises(UserError, match="all masks hold the single id 0; "):
        open_splits(DataConfig("folder", root=tmp_path))


@pytest.mark.parametrize("without_labels", [False, True])
def test_tiles_whose_bands_are_in_another_order_are_refused(tiff_library, tmp_path, without_labels):
    """Training, and images without labels, read what a device reads."""
    mask = np.arange(64, dtype=np.uint8).reshape(8, 8) % 2
    other = tmp_path / "more" if without_labels else tmp_path / "train" / "images"
    for folder, name, names in (
        (tmp_path / "train" / "images", "a", ("VV", "VH")),
        (tmp_path / "val" / "images", "a", ("VV", "VH")),
        (other, "b", ("VH", "VV")),
    ):
        write_named(folder / f"{name}.tif", names)
        if folder.name == "images":
            write_png(folder.parent / "masks" / f"{name}.png", mask)
    config = DataConfig("folder", root=tmp_path, unlabeled=other if without_labels else None)
    splits = open_splits(config)
    reader = splits.unlabeled if without_labels else splits.train
    with pytest.raises(UserError, match=r"b\.tif: its bands are VH, VV in this order, wanted are VV, VH"):
        list(map(reader.__getitem__, range(len(reader))))
