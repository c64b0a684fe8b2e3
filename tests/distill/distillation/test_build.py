"""Distillations that a configuration describes: `edge` students learn from PSPNet-ResNet101, logits and features."""

import pytest
import torch

from deploy.errors import UserError
from distill.config import DistillConfig
from distill.data.sample import Batch
from distill.distillation.build import build_distillation_loss, check_aux
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


def test_terms_on_an_auxiliary_head_need_one():
    terms = parse_distillation("kl(t=2)", "5*kl(t=2)")
    check_aux(terms, build_network("edge/8", 3, CLASSES))
    check_aux(parse_distillation("kl(t=2)", ""), build_network("ggcnn", 3, CLASSES))
    for student in (build_network("edge/8", 3, CLASSES, aux=False), build_network("ggcnn", 3, CLASSES)):
        with pytest.raises(
            UserError, match=r"--distill\.aux: the student has no auxiliary head; leave it out"
        ):
            check_aux(terms, student)
