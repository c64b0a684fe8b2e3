"""Stages of training that take a second, for the tests of this folder."""

from dataclasses import replace

import pytest
import torch

from distill.config import AugmentConfig, DataConfig
from distill.data.order import Order
from distill.data.readers import training_images
from distill.data.train_view import TrainView
from distill.tasks.registry import open_splits
from distill.training.stage import Stage
from tests.distill.tiny import CE


@pytest.fixture
def stage(tmp_path):
    splits = open_splits(DataConfig("synthetic", size=(32, 32), synthetic_counts=(10, 1, 1)))
    view = TrainView(
        splits.train,
        size=(32, 32),
        resize="stretch",
        augment=AugmentConfig(crop=(24, 24)),
        mean=(-12.0, -19.0),
        optical=False,
    )
    mean, std = torch.tensor([-12.0, -19.0]).view(-1, 1, 1), torch.full((2, 1, 1), 5.0)
    return Stage("tiny", tmp_path / "tiny", view, mean, std, CE, seed=0)


@pytest.fixture
def mixed_stage(stage):
    """The same with the labels of three of its ten images; half of a batch has none."""
    data = DataConfig("synthetic", size=(32, 32), synthetic_counts=(10, 1, 1), labels=3)
    view = replace(stage.view, reader=training_images(open_splits(data)).train, labeled=3)
    return replace(stage, view=view, order=Order(3, 7, share=0.5))
