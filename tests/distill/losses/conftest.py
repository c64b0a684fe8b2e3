"""A batch and the maps of two networks for it."""

import pytest
import torch

from distill.data.sample import Batch
from distill.losses.distillation_loss import TeacherOutput
from teacher.pspnet import Output
from tests.distill.losses.made import numbers


@pytest.fixture
def batch():
    """Three images; the second has few valid pixels, the third none."""
    label = torch.randint(0, 3, (3, 8, 8), generator=torch.Generator().manual_seed(1))
    valid = torch.ones(3, 8, 8, dtype=torch.bool)
    valid[1, 2:] = False
    valid[2] = False
    return Batch(numbers(3, 2, 8, 8), torch.where(valid, label, 255), valid, ("a", "b", "c"))


@pytest.fixture
def maps():
    output = Output(numbers(3, 3, 4, 4), numbers(3, 3, 2, 2, seed=2), {"layer4": numbers(3, 6, 4, 4, seed=3)})
    return output, TeacherOutput(numbers(3, 3, 8, 8, seed=4), {"layer4": numbers(3, 6, 8, 8, seed=5)})
