"""A network of two convolutions and a run that takes seconds."""

from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from distill.config import DistillConfig
from distill.distillation.build import build_distillation_loss
from distill.distillation.teachers import online_teacher
from distill.losses.distillation_loss import features_of
from distill.losses.expression import parse_terms
from distill.training.step_module import Distillation
from teacher.pspnet import Output


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


def distillation(
    teacher: nn.Module, student: nn.Module, accelerator: Accelerator, loss: str = "kl(t=2)", **options: Any
) -> Distillation:
    """Online distillation with the losses of an expression; `options` are fields of `DistillConfig`."""
    config = DistillConfig(loss=loss, **options)
    terms = parse_terms(loss)
    distillation_loss = build_distillation_loss(config, terms, teacher, student)
    teach = online_teacher([teacher], accelerator, features=features_of(terms))
    return Distillation(teach, distillation_loss, config.weight, config.schedule)


RUN = (
    "smoke",
    "--teacher.arch=pspnet/mobilenetv3_small_050",
    "--student.arch=pspnet/mobilenetv3_small_050",
    "--teacher.head-channels=16",
    "--student.head-channels=16",
    "--precision=fp32",
)
"""A run with the smallest backbones: `parse([*RUN, "--out", …])`."""
