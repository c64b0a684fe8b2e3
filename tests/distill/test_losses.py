"""Losses: right by gradient check, by identities, and against independent computations."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from scipy.stats import entropy
from torch.nn import functional as F

from deploy.errors import UserError
from distill.losses.kd import pixelwise_kl, valid_share
from distill.losses.task import cross_entropy, log_frequency_weights


def logits(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def scene():
    """Logits at stride 4, labels with a void corner."""
    label = torch.randint(0, 3, (2, 16, 24), generator=torch.Generator().manual_seed(1))
    valid = torch.ones(2, 16, 24, dtype=torch.bool)
    valid[:, :8, :8] = False
    label[~valid] = 255
    return logits(2, 3, 4, 6), logits(2, 3, 4, 6, seed=2), label, valid


class TestCrossEntropy:
    def test_gradient(self, scene):
        student, _, label, valid = scene
        assert torch.autograd.gradcheck(lambda s: cross_entropy(s, label, valid), (student.requires_grad_(),))

    @pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64)])
    def test_equals_torch_with_ignore_index(self, scene, weights):
        student, _, label, valid = scene
        upsampled = F.interpolate(student, (16, 24), mode="bilinear", align_corners=False)
        expected = F.cross_entropy(upsampled, label, weights, ignore_index=255)
        torch.testing.assert_close(cross_entropy(student, label, valid, weights), expected)

    def test_all_void_is_zero_with_zero_gradient(self, scene):
        student, _, label, valid = scene
        loss = cross_entropy(student.requires_grad_(), label, torch.zeros_like(valid))
        loss.backward()
        assert loss == 0
        assert not student.grad.any()

    def test_half_precision_logits_are_summed_in_float32(self, scene):
        student, _, label, valid = scene
        assert cross_entropy(student.bfloat16(), label, valid).dtype == torch.float32

    def test_enet_weights(self):
        # arXiv:1606.02147, c = 1.02: a class everywhere weighs 1/ln 2.02, an absent one 1/ln 1.02
        weights = log_frequency_weights((100, 0))
        torch.testing.assert_close(
            weights, torch.tensor([1 / np.log(2.02), 1 / np.log(1.02)], dtype=torch.float32)
        )


class TestPixelwiseKL:
    def test_gradient(self, scene):
        student, teacher, _, valid = scene
        assert torch.autograd.gradcheck(
            lambda s: pixelwise_kl(s, teacher, valid, 2.0), (student.requires_grad_(),)
        )

    def test_equals_scipy(self, scene):
        student, teacher, _, _ = scene
        tau = 3.0
        p, q = (np.exp(log_softmax(x.numpy() / tau, axis=1)) for x in (teacher, student))
        expected = tau**2 * entropy(p, q, axis=1).mean()
        everywhere = torch.ones(2, 16, 24, dtype=torch.bool)
        assert pixelwise_kl(student, teacher, everywhere, tau).item() == pytest.approx(expected, rel=1e-12)

    def test_zero_exactly_where_student_is_teacher(self, scene):
        student, _, _, valid = scene
        assert pixelwise_kl(student, student.clone(), valid, 4.0) == 0
        # softmax does not see a constant added to all classes of a pixel
        shifted = student + logits(2, 1, 4, 6, seed=5)
        assert pixelwise_kl(student, shifted, valid, 4.0).item() == pytest.approx(0, abs=1e-12)

    def test_classes_are_the_axis(self, scene):
        student, teacher, _, valid = scene
        order = [2, 0, 1]
        loss = pixelwise_kl(student, teacher, valid)
        torch.testing.assert_close(pixelwise_kl(student[:, order], teacher[:, order], valid), loss)
        assert not torch.isclose(pixelwise_kl(student[:, order], teacher, valid), loss)

    def test_unchanged_when_tiled(self, scene):
        student, teacher, _, valid = scene
        tiled = [x.tile(1, 1, 2, 3) for x in (student, teacher)]
        torch.testing.assert_close(
            pixelwise_kl(*tiled, valid.tile(1, 2, 3), 2.0), pixelwise_kl(student, teacher, valid, 2.0)
        )

    def test_gradient_keeps_its_scale_with_temperature(self):
        # Hinton et al.: τ² keeps gradients comparable; for large τ the loss tends to |s - t|² / 2K
        student, teacher = logits(1, 4, 2, 2), logits(1, 4, 2, 2, seed=3)
        student, teacher = (x - x.mean(1, keepdim=True) for x in (student, teacher))
        valid = torch.ones(1, 2, 2, dtype=torch.bool)
        limit = ((student - teacher) ** 2).sum(1).mean() / (2 * 4)
        torch.testing.assert_close(pixelwise_kl(student, teacher, valid, 1e4), limit, rtol=1e-3, atol=0)

    def test_void_cells_have_no_influence(self, scene):
        student, teacher, _, valid = scene
        other = teacher.clone()
        other[:, :, :2, :2] = 100 * torch.randn(
            2, 3, 2, 2, dtype=torch.float64
        )  # the void corner at stride 4
        torch.testing.assert_close(pixelwise_kl(student, other, valid), pixelwise_kl(student, teacher, valid))

    def test_one_image_has_a_gradient(self, scene):
        student, teacher, _, valid = (x[:1] for x in scene)
        student = student.clone().requires_grad_()
        pixelwise_kl(student, teacher, valid).backward()
        assert student.grad.abs().sum() > 0

    def test_teacher_gets_no_gradient(self, scene):
        student, teacher, _, valid = scene
        teacher.requires_grad_()
        pixelwise_kl(student.requires_grad_(), teacher, valid).backward()
        assert teacher.grad is None

    def test_other_stride(self, scene):
        student, _, _, valid = scene
        teacher = F.interpolate(student, (8, 12), mode="bilinear", align_corners=False)
        assert pixelwise_kl(student, teacher, valid).item() == pytest.approx(0, abs=1e-12)

    def test_all_void_is_zero_with_zero_gradient(self, scene):
        student, teacher, _, valid = scene
        loss = pixelwise_kl(student.requires_grad_(), teacher, torch.zeros_like(valid))
        loss.backward()
        assert loss == 0
        assert not student.grad.any()

    def test_other_class_counts_are_refused(self, scene):
        student, _, _, valid = scene
        with pytest.raises(UserError, match="19 classes, the student 3"):
            pixelwise_kl(student, logits(2, 19, 4, 6), valid)


def test_valid_share_is_the_mean_of_the_cell():
    valid = torch.zeros(1, 4, 4, dtype=torch.bool)
    valid[0, 0, :2] = True
    torch.testing.assert_close(
        valid_share(valid, torch.Size((2, 2))), torch.tensor([[[0.5, 0.0], [0.0, 0.0]]])
    )
