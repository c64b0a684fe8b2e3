"""Trainings on images with invalid pixels, with and without masked batch norms."""

from dataclasses import replace

import torch

from distill.config import AugmentConfig, DataConfig, TrainConfig
from distill.data.train_view import TrainView
from distill.tasks.registry import open_splits
from distill.training.loop import train
from distill.training.stage import Stage
from student.unet import UNet
from tests.distill.data.listed import Listed
from tests.distill.tiny import CE

MEAN, STD = (-12.0, -19.0), (5.0, 5.0)


def new_network(seed=0, **options):
    torch.manual_seed(seed)
    return UNet(2, 2, width=4, depth=2, dropout=0.0, **options)


def all_valid(reader):
    """The samples of a reader in which every pixel is valid."""
    return Listed([sample for sample in map(reader.__getitem__, range(len(reader))) if sample.valid.all()])


def new_stage(folder, scale=(0.5, 2.0), whole=False):
    splits = open_splits(DataConfig("synthetic", size=(32, 32), synthetic_counts=(10, 1, 1)))
    augment, reader = (
        AugmentConfig(crop=(24, 24), scale=scale),
        all_valid(splits.train) if whole else splits.train,
    )
    view = TrainView(reader, size=(32, 32), augment=augment, mean=MEAN, optical=False)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (MEAN, STD))
    return Stage(folder.name, folder, view, mean, std, CE, seed=0, aux=0.0)


CONFIG = TrainConfig(steps=4, batch_size=4, lr=0.01)
MASKED = replace(CONFIG, masked_norm=True)


def trained(folder, config, accelerator, network=None, **options):
    network = network or new_network(aux=False)
    train(network, new_stage(folder, **options), config, accelerator)
    return network
