"""Distillations that a configuration describes: `edge` students learn from PSPNet-ResNet101, logits and features."""

import pytest
import torch

from distill.config import DistillConfig
from distill.data.sample import Batch
from distill.distillation.build import build_distillation_loss
from distill.losses.distillation_loss import TeacherOutput, parse_distillation
from student.edge import SIZES
from student.zoo import build_network

CLASSES = 5
LOSS = "kl(t=2) + cwd(t=4) + 0.1*feature(layer3) + 0.1*feature(layer4)"


@pytest.fixture(scope="module")
def resnet101():
    torch.manual_seed(0)
    teacher = build_network("pspnet/resnet101", 3, CLASSES, output_stride=16, head_channels=16)
    return teacher.eval().requires_grad_(False)


@pytest.mark.parametrize("detail", [False, True])
@pytest.mark.parametrize("name", [name for name, _ in SIZES])
def test_edge_students_learn_from_resnet101(resnet101, name, detail):
    torch.manual_seed(1)
    student = build_network(name, 3, CLASSES, detail=detail).train()
    distill = DistillConfig(loss=LOSS, aux="kl(t=2)")
    loss = build_distillation_loss(distill, parse_distillation(distill.loss, distill.aux), resnet101, student)
    image = torch.randn(2, 3, 64, 80)
    found = resnet101(image)
    batch = Batch(
        image,
        torch.zeros(2, 64, 80, dtype=torch.int64),
        torch.ones(2, 64, 80, dtype=torch.bool),
        ("a", "b"),
        ((0, 0), (0, 1)),
    )
    loss(student(image), TeacherOutput(found.logits, found.features), batch).backward()
    without = [
        key for key, weight in student.named_parameters() if weight.grad is None or not weight.grad.any()
    ]
    assert without == []
    assert all(weight.grad is not None and weight.grad.any() for weight in loss.parameters())
