"""Temperature, and the boundaries between classes."""

from dataclasses import replace

import pytest
import torch

from distill.losses.distillation.common import Pixels
from distill.losses.distillation.logits import kl, near_boundary
from tests.distill.losses.dense import CLASSES, compute, normal


class TestTemperature:
    @pytest.mark.parametrize("name", ["kl", "boundary"])
    def test_gradient_keeps_its_scale(self, scene, name):
        # Hinton et al.: t² keeps gradients comparable; for large t the loss tends to |s - t|² / 2K
        student, teacher, _ = scene
        student, teacher = (x - x.mean(1, keepdim=True) for x in (student, teacher))
        pixels = Pixels(torch.ones(2, 4, 6), torch.zeros(2, 4, 6, dtype=torch.int64), CLASSES)
        limit = ((student - teacher) ** 2).sum(1).mean((1, 2)) / (2 * CLASSES)
        torch.testing.assert_close(compute(name, student, teacher, pixels, t=1e4), limit, rtol=1e-3, atol=0)


class TestHard:
    def test_is_kl_to_a_teacher_that_is_sure(self, scene):
        student, teacher, pixels = scene
        expected = kl(student, 1e6 * teacher, pixels)
        torch.testing.assert_close(compute("hard", student, teacher, pixels), expected)

    def test_how_sure_the_teacher_is_does_not_matter(self, scene):
        student, teacher, pixels = scene
        expected = compute("hard", student, teacher, pixels)
        torch.testing.assert_close(compute("hard", student, teacher / 100, pixels), expected)


class TestBoundary:
    def scene(self):
        """One image of two halves, 8×8 pixels at stride 1, the student wrong on the two columns at their boundary."""
        label = torch.zeros(1, 8, 8, dtype=torch.int64)
        label[..., 4:] = 1
        teacher = normal(1, 2, 8, 8)
        student = teacher.clone()
        student[..., 3:5] += normal(1, 2, 8, 2, seed=3)
        return student, teacher, Pixels(torch.ones(1, 8, 8), label, 2)

    def test_share_of_the_edge(self):
        student, teacher, pixels = self.scene()
        on_edge = kl(
            student[..., 3:5], teacher[..., 3:5], Pixels(torch.ones(1, 8, 2), torch.zeros(1, 8, 2), 2)
        )
        for edge in (0.0, 0.3, 1.0):
            torch.testing.assert_close(
                compute("boundary", student, teacher, pixels, radius=1, edge=edge), edge * on_edge
            )

    @pytest.mark.parametrize("everywhere", [False, True])
    def test_one_part_counts_alone(self, everywhere):
        student, teacher, pixels = self.scene()
        label = torch.arange(64).view(1, 8, 8) % 2 if everywhere else torch.zeros_like(pixels.label)
        pixels = replace(pixels, label=label)
        for edge in (0.0, 0.3, 1.0):
            torch.testing.assert_close(
                compute("boundary", student, teacher, pixels, edge=edge), kl(student, teacher, pixels)
            )

    @pytest.mark.parametrize("radius", [1, 2])
    def test_near_boundary(self, radius):
        label = torch.full((1, 5, 9), 3)
        label[0, 2, 4] = 1
        expected = torch.zeros(1, 5, 9, dtype=torch.bool)
        expected[0, 2 - radius : 3 + radius, 4 - radius : 5 + radius] = True
        assert near_boundary(label, torch.ones_like(expected), radius).equal(expected)

    def test_void_and_frame_are_not_boundaries(self):
        label = torch.full((1, 5, 9), 3)
        label[0, 2, 4] = 255
        assert not near_boundary(label, label != 255, 2).any()
        assert near_boundary(label, torch.ones_like(label, dtype=torch.bool), 2).any()
