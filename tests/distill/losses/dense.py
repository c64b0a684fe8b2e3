"""A scene at stride 4 on which distillation losses are tested, and one way to call them all."""

from dataclasses import replace

import torch

from distill.losses.distillation.cirkd import MemoryBank
from distill.losses.distillation.common import Pixels
from distill.losses.registry import DISTILLATION_LOSSES

CLASSES = 4
VOID = (slice(None), slice(0, 2), slice(0, 2))
"""The cells of the scene that lie wholly in void, for N×h×w."""


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def make_pixels() -> Pixels:
    """2×16×24 labels; weights of many sizes; void in a corner, and in part of some cells elsewhere.

    A frame 3 pixels wide carries one class, so that tiling the images makes no new boundaries.
    """
    generator = torch.Generator().manual_seed(1)
    label = torch.zeros(2, 16, 24, dtype=torch.int64)
    label[:, 3:13, 3:21] = (
        torch.randint(0, CLASSES, (2, 5, 9), generator=generator)
        .repeat_interleave(2, 1)
        .repeat_interleave(2, 2)
    )
    weight = 0.2 + torch.rand(2, 16, 24, dtype=torch.float64, generator=generator)
    weight[:, :8, :8] = 0
    weight[:, 12, 9:16] = 0
    label[weight == 0] = 255
    return Pixels(weight, label, CLASSES)


def make_scene():
    """Maps of student and teacher, 2×4×4×6 float64, and their pixels."""
    return normal(2, CLASSES, 4, 6), normal(2, CLASSES, 4, 6, seed=2), make_pixels()


def make_memory(filled=True) -> MemoryBank:
    """A small memory in evaluation mode, so that no loss changes it."""
    memory = MemoryBank(CLASSES, CLASSES, pixels=5, regions=3).double()
    if filled:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            memory.update(normal(2, CLASSES, 4, 6, seed=7), make_pixels())
    return memory.eval()


def compute(name, student, teacher, pixels, **options):
    """The losses of the loss of that name, one per image."""
    if DISTILLATION_LOSSES[name].memory:
        options.setdefault("memory", make_memory())
    return DISTILLATION_LOSSES[name].function(student, teacher, pixels, **options)


def without_weight(pixels: Pixels, image=slice(None)) -> Pixels:
    """The same with void everywhere, or in one image."""
    weight = pixels.weight.clone()
    weight[image] = 0
    return replace(pixels, weight=weight)


def backward(name, student, teacher, pixels, **options):
    """Losses and the gradient of their sum."""
    student = student.detach().clone().requires_grad_()
    loss = compute(name, student, teacher, pixels, **options)
    loss.sum().backward()
    return loss.detach(), student.grad
