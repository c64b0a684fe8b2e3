"""Losses of grasp maps: cells without a grasp count less, or not at all."""

from dataclasses import replace

import torch

from tests.distill.losses.dense import backward, compute


class TestQuality:
    def test_cells_without_a_grasp_count_less(self, scene):
        student, teacher, pixels = scene
        teacher[:, 0] = 0
        teacher[:, 0, 2, 3] = 5.0  # clamped to 1
        student[:, 0] = teacher[:, 0]
        only = torch.zeros_like(pixels.weight)
        only[:, 8:12, 12:16] = pixels.weight[:, 8:12, 12:16]
        torch.testing.assert_close(
            compute("maps", student, teacher, pixels, quality=1.0),
            compute("maps", student, teacher, replace(pixels, weight=only)),
        )

    def test_no_grasp_anywhere_is_zero(self, scene):
        student, teacher, pixels = scene
        teacher[:, 0] = -1
        loss, gradient = backward("maps", student, teacher, pixels, quality=1.0)
        assert not loss.any()
        assert not gradient.any()


class TestGraspKl:
    def test_a_teacher_without_a_grasp_teaches_no_shape(self, scene):
        student, teacher, pixels = scene
        teacher[:, 0] = student[:, 0] = -2
        assert not compute("grasp_kl", student, teacher, pixels).any()
        teacher[:, 0] = student[:, 0] = 2
        torch.testing.assert_close(
            compute("grasp_kl", student, teacher, pixels, beta=0.3),
            compute("maps", student[:, 1:], teacher[:, 1:], pixels, beta=0.3),
        )

    def test_certain_and_wrong_is_finite(self, scene):
        student, teacher, pixels = scene
        teacher[:, 0], student[:, 0] = 200, -200
        loss, gradient = backward("grasp_kl", student, teacher, pixels)
        assert torch.isfinite(loss).all()
        assert torch.isfinite(gradient).all()
        assert (loss > 190).all()
