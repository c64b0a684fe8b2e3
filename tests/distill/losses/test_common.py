"""Losses: right by gradient check, by identities, and against independent computations."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from distill.losses.common import cross_entropy
from distill.losses.supervised.class_weights import log_frequency_weights


def logits(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def scene():
    """Logits at stride 4, labels with a void corner."""
    label = torch.randint(0, 3, (2, 16, 24), generator=torch.Generator().manual_seed(1))
    valid = torch.ones(2, 16, 24, dtype=torch.bool)
    valid[:, :8, :8] = False
    label[~valid] = 255
    return logits(2, 3, 4, 6), label, valid


class TestCrossEntropy:
    def test_gradient(self, scene):
        student, label, valid = scene
        assert torch.autograd.gradcheck(lambda s: cross_entropy(s, label, valid), (student.requires_grad_(),))

    @pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64)])
    def test_equals_torch_with_ignore_index(self, scene, weights):
        student, label, valid = scene
        upsampled = F.interpolate(student, (16, 24), mode="bilinear", align_corners=False)
        expected = F.cross_entropy(upsampled, label, weights, ignore_index=255)
        torch.testing.assert_close(cross_entropy(student, label, valid, weights), expected)

    def test_all_void_is_zero_with_zero_gradient(self, scene):
        student, label, valid = scene
        loss = cross_entropy(student.requires_grad_(), label, torch.zeros_like(valid))
        loss.backward()
        assert loss == 0
        assert not student.grad.any()

    def test_half_precision_logits_are_summed_in_float32(self, scene):
        student, label, valid = scene
        assert cross_entropy(student.bfloat16(), label, valid).dtype == torch.float32

    def test_enet_weights(self):
        # arXiv:1606.02147, c = 1.02: a class everywhere weighs 1/ln 2.02, an absent one 1/ln 1.02
        weights = log_frequency_weights((100, 0))
        torch.testing.assert_close(
            weights, torch.tensor([1 / np.log(2.02), 1 / np.log(1.02)], dtype=torch.float32)
        )
