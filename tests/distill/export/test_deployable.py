"""The deployed form of a grasp network: quality in 0..1 however it was trained, labels where it is good."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from deploy.bundle.manifest import InputSpec
from distill.export.deployable import Deployable, TorchEngine
from distill.tasks.grasp import grasp_head
from teacher.pspnet import Output

SPEC = InputSpec(("depth",), 8, 8, "float32", "NCHW", mean=(0.0,), std=(1.0,), nodata="nan", depth=0)


class Raw(nn.Module):
    """Returns the same four maps at half the size for any input."""

    def __init__(self, quality):
        super().__init__()
        values = torch.tensor([quality, 0.6, -0.8, 1.7])
        self.maps = nn.Buffer(values[None, :, None, None].expand(1, 4, 4, 4).clone())

    def forward(self, x):
        return Output(self.maps.expand(len(x), -1, -1, -1), None)


@pytest.mark.parametrize(
    ("kind", "raw", "quality"),
    [
        ("clamp", 1.4, 1.0),
        ("clamp", -0.2, 0.0),
        ("sigmoid", 2.0, 1 / (1 + np.exp(-2))),
        ("sigmoid", -0.1, 0.475),
    ],
)
def test_quality_and_labels(kind, raw, quality):
    deployable = Deployable(Raw(raw), SPEC, partial(grasp_head, quality=kind))
    outputs = TorchEngine(deployable).run(np.zeros((2, 1, 8, 8), np.float32))
    assert outputs["logits"].shape == (2, 4, 8, 8)
    assert outputs["logits"][:, 0] == pytest.approx(quality, abs=1e-3)
    assert outputs["logits"][:, 3] == pytest.approx(1)  # no wider than the image
    assert (outputs["labels"] == int(quality >= 0.5)).all()
