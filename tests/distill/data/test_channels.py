"""The choice of channels by name or number."""

import pytest
import torch

from deploy.errors import UserError
from distill.config import DataConfig
from distill.data.channels import choose_channels
from distill.tasks.registry import open_splits
from tests.distill.data.datasets.raster_folders import folder_of, ombria


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (("after",), ("after",)),
        (("0",), ("before",)),
        (("1,0",), ("after", "before")),
        (("1", "before"), ("after", "before")),
        (("0,1",), ("before", "after")),
    ],
)
def test_channels_by_name_and_place(tmp_path, wanted, names):
    ombria(tmp_path)
    both = open_splits(DataConfig("ombria", root=tmp_path))
    chosen = open_splits(DataConfig("ombria", root=tmp_path, channels=wanted))
    assert chosen.channels == names
    for split in ("train", "val", "test"):
        ours, all_ = getattr(chosen, split)[1], getattr(both, split)[1]
        for plane, name in zip(ours.image, names, strict=True):
            torch.testing.assert_close(plane, all_.image[both.channels.index(name)])
        torch.testing.assert_close(ours.label, all_.label)
        assert getattr(chosen, split).ids == getattr(both, split).ids


def test_a_test_on_the_validation_split_stays_one(tmp_path):
    folder_of(tmp_path)
    splits = choose_channels(open_splits(DataConfig("folder", root=tmp_path)), ["B"])
    assert splits.tested_on == "val"


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("VV", "--data.channels VV: the data has no such channel; it has 0 before, 1 after"),
        ("2", "no such channel"),
        ("0,before", "names a channel twice"),
    ],
)
def test_channels_that_are_not_there(tmp_path, wanted, words):
    ombria(tmp_path)
    with pytest.raises(UserError, match=words):
        open_splits(DataConfig("ombria", root=tmp_path, channels=(wanted,)))


def test_grasp_channels_are_words():
    with pytest.raises(UserError, match=r"--data\.channels 0: grasp data has depth, rgb, rgbd"):
        open_splits(DataConfig("tabletop", channels=("0",)))
