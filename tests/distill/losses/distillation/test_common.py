"""Weights of the cells of a map, and means over them."""

from dataclasses import replace

import pytest
import torch

from distill.losses.distillation.common import Pixels, cell_weight, class_weight, image_mean, weighted_kl
from tests.distill.losses.dense import make_pixels, normal


class TestPixels:
    def test_cell_weight_is_the_mean_of_the_cell(self):
        weight = torch.zeros(1, 4, 4)
        weight[0, 0, :2] = 1
        pixels = Pixels(weight, torch.zeros(1, 4, 4, dtype=torch.int64), 2)
        expected = torch.tensor([[[0.5, 0.0], [0.0, 0.0]]])
        torch.testing.assert_close(cell_weight(pixels, torch.Size((2, 2))), expected)
        assert cell_weight(pixels, torch.Size((4, 4))).equal(weight)

    @pytest.mark.parametrize("size", [(4, 6), (16, 24), (5, 7)])
    def test_class_weights_add_up_to_the_cell(self, size):
        pixels, size = make_pixels(), torch.Size(size)
        parts = class_weight(pixels, size)
        torch.testing.assert_close(parts.sum(1), cell_weight(pixels, size))
        of_class_2 = replace(pixels, weight=pixels.weight * (pixels.label == 2))
        torch.testing.assert_close(parts[:, 2], cell_weight(of_class_2, size))

    def test_image_mean(self):
        mean = image_mean(torch.tensor([[1.0, 5.0], [1.0, 2.0]]), torch.tensor([[3.0, 1.0], [0.0, 0.0]]))
        assert mean.tolist() == [2.0, 0.0]

    def test_weighted_kl_counts_a_double_weight_as_two_places(self):
        q, p, weight = normal(3, 4), normal(3, 4, seed=1), torch.tensor([2.0, 1.0, 0.0, 1.0])
        twice = [0, 0, 1, 3]
        torch.testing.assert_close(
            weighted_kl(q, p, weight), weighted_kl(q[:, twice], p[:, twice], torch.ones(4))
        )
