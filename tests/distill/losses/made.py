"""Random maps, and a distillation loss for them."""

import torch

from distill.losses.distillation_loss import DistillationLoss, Shapes, parse_distillation

SHAPES = Shapes(3, {"layer3": 4, "layer4": 6})


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def distillation_loss(loss="kl(t=2)", aux="", trust="everywhere", student=SHAPES, teacher=SHAPES):
    return DistillationLoss(parse_distillation(loss, aux), student, teacher, trust)
