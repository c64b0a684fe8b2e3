"""The trainings of `benchmarks/no_data.py`: one small network, with masked or ordinary batch norms."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from distill.config import AugmentConfig, DataConfig, TrainConfig
from distill.data.splits import Reader, Splits
from distill.data.stats import compute_stats
from distill.data.train_view import TrainView
from distill.export.evaluate import evaluate, torch_model
from distill.export.to_onnx import input_spec
from distill.losses.expression import parse_terms
from distill.losses.registry import SEGMENTATION_LOSSES
from distill.tasks.segmentation import SegmentationTask, segmentation_loss
from distill.tasks.task import PreparedData
from distill.training.loop import train
from distill.training.stage import Stage
from student.zoo import build_network

SIDE = 48
"""Height and width of a scene in pixels."""
OPTIONS = {"unet": {"width": 8, "depth": 3}, "pspnet/resnet18": {"head_channels": 64}}
RATES = {"unet": 3e-3, "pspnet/resnet18": 1e-3}
"""Options and learning rates of the networks that can be compared."""

Scorer = Callable[[nn.Module, Reader], float]
"""Test mIoU of a network on the scenes of a reader."""


@dataclass(frozen=True)
class Setting:
    """Settings of all trainings."""

    arch: str
    steps: int
    batch_size: int
    uneven: bool
    """Some scenes lack `MOST` of their pixels and the others none."""


def trained(setting: Setting, splits: Splits, seed: int, masked: bool) -> tuple[nn.Module, float, Scorer]:
    """Train a network on the training split.

    Args:
        setting: settings of all trainings.
        splits: the data; its training split may have gaps.
        seed: seed of first weights and data order.
        masked: use masked batch norms.

    Returns:
        The network, the seconds that its training took, and a function that scores it.
    """
    stats = compute_stats(splits.train, len(splits.classes))
    size = SIDE, SIDE
    augment = AugmentConfig(crop=size, scale=(1.0, 1.0), vertical_flip=True)
    view = TrainView(splits.train, size=size, augment=augment, mean=stats.mean, optical=False, seed=seed)
    torch.manual_seed(seed)
    options = {"aux": False, "dropout": 0.0, **OPTIONS[setting.arch]}
    task = SegmentationTask(parse_terms("ce", SEGMENTATION_LOSSES), len(splits.classes))
    data = PreparedData(splits, stats, task)
    network = build_network(setting.arch, len(splits.channels), task.outputs, **options)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (stats.mean, stats.std))
    with tempfile.TemporaryDirectory() as folder:
        name = "masked" if masked else "plain"
        stage = Stage(
            name, Path(folder) / name, view, mean, std, segmentation_loss(task.terms), seed, aux=0.0
        )
        began = time.perf_counter()
        train(network, stage, _train_config(setting, masked), Accelerator(cpu=True))
        seconds = time.perf_counter() - began

    def score(network: nn.Module, reader: Reader) -> float:
        spec = input_spec(data, DataConfig("synthetic", size=size))
        return evaluate(torch_model(network.eval(), spec, data), reader, data).score()

    return network, seconds, score


def _train_config(setting: Setting, masked: bool) -> TrainConfig:
    """The configuration of one training, with masked or ordinary batch norms."""
    return TrainConfig(
        setting.steps,
        setting.batch_size,
        lr=RATES[setting.arch],
        warmup=setting.steps // 10,
        checkpoint_every=setting.steps,
        log_every=setting.steps,
        masked_norm=masked,
    )
