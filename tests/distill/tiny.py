"""A network of two convolutions and a run that takes seconds."""

import subprocess
import sys
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from distill.config import DistillConfig, RunConfig
from distill.data.splits import Splits
from distill.data.stats import Stats, compute_stats
from distill.distillation.build import build_distillation_loss
from distill.distillation.teachers import online_teacher
from distill.losses.distillation_loss import parse_distillation
from distill.losses.registry import SEGMENTATION_LOSSES
from distill.losses.task_loss import parse_task_terms
from distill.pipeline.validation import check_data
from distill.run_context import terms_of
from distill.tasks.registry import task_of
from distill.tasks.segmentation import SegmentationTask, segmentation_loss
from distill.tasks.task import PreparedData, TaskLoss
from distill.training.step_module import Distillation
from teacher.pspnet import Output
from tests.conftest import ROOT


class TinyNet(nn.Module):
    """Stride 4, with dropout, batch norm and an auxiliary head: everything that training must handle."""

    def __init__(self, in_channels: int = 2, num_outputs: int = 2) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(in_channels, 8, 4, stride=4), nn.BatchNorm2d(8), nn.ReLU())
        self.dropout = nn.Dropout2d(0.3)
        self.classifier = nn.Conv2d(8, num_outputs, 1)
        self.aux_head = nn.Conv2d(8, num_outputs, 1)

    def forward(self, x: Tensor) -> Output:
        features = self.backbone(x)
        logits = self.classifier(self.dropout(features))
        aux = self.aux_head(features) if self.training else None
        return Output(logits, aux, {"layer4": features})


def tiny_net(seed: int = 0, **options: int) -> TinyNet:
    torch.manual_seed(seed)
    return TinyNet(**options)


def labels_loss(text: str) -> TaskLoss:
    """The sum of losses against labels that a text describes."""
    return segmentation_loss(parse_task_terms(text, SEGMENTATION_LOSSES))


CE = labels_loss("ce")


def prepared_data(splits: Splits, stats: Stats | None = None) -> PreparedData:
    """A segmentation data set with its statistics."""
    stats = stats or compute_stats(splits.train, len(splits.classes))
    terms = parse_task_terms("ce", SEGMENTATION_LOSSES)
    return PreparedData(splits, stats, SegmentationTask(terms, len(splits.classes)))


def check_against_data(config: RunConfig, splits: Splits) -> None:
    """What `prepare` checks of a configuration once the data is open."""
    terms = terms_of(config)
    check_data(config, splits, task_of(config, splits), terms)


def distillation(
    teacher: nn.Module, student: nn.Module, accelerator: Accelerator, loss: str = "kl(t=2)", **options: Any
) -> Distillation:
    """Online distillation with the losses of an expression; `options` are fields of `DistillConfig`."""
    config = DistillConfig(loss=loss, **options)
    terms = parse_distillation(loss, config.aux)
    distillation_loss = build_distillation_loss(config, terms, teacher, student)
    teach = online_teacher([teacher], accelerator, features=terms.features)
    return Distillation(teach, distillation_loss, config.weight, config.schedule)


RUN = (
    "smoke",
    "--teacher.arch=pspnet/test_efficientnet",
    "--student.arch=pspnet/test_efficientnet",
    "--teacher.head-channels=16",
    "--student.head-channels=16",
    "--precision=fp32",
    "--no-page",
)
"""A run with the smallest backbones and without its page: `parse([*RUN, "--out", …])`."""


def run_script(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """`python distill/run.py` with these arguments."""
    command = [sys.executable, "distill/run.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, **options)
