"""A network of two convolutions and a run that takes seconds."""

import torch
from torch import Tensor, nn

from teacher.pspnet import Output


class TinyNet(nn.Module):
    """Stride 4, with dropout, batch norm and an auxiliary head: everything that training has to get right."""

    def __init__(self, in_channels: int = 2, num_outputs: int = 2) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(in_channels, 8, 4, stride=4), nn.BatchNorm2d(8), nn.ReLU())
        self.dropout = nn.Dropout2d(0.3)
        self.classifier = nn.Conv2d(8, num_outputs, 1)
        self.aux_head = nn.Conv2d(8, num_outputs, 1)

    def forward(self, x: Tensor) -> Output:
        features = self.backbone(x)
        logits = self.classifier(self.dropout(features))
        return Output(logits, self.aux_head(features) if self.training else None)


def tiny_net(seed: int = 0, **options: int) -> TinyNet:
    torch.manual_seed(seed)
    return TinyNet(**options)


RUN = (
    "smoke",
    "--teacher.arch=pspnet/mobilenetv3_small_050",
    "--student.arch=pspnet/mobilenetv3_small_050",
    "--teacher.head-channels=16",
    "--student.head-channels=16",
    "--precision=fp32",
)
"""A run with the smallest of backbones: `parse([*RUN, "--out", …])`."""
