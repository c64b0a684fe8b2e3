"""The grids of INT8 and the gradients through them."""

import math

import numpy as np
import pytest
import torch

from deploy.quantize import qdq
from distill.quantization.grids import fake_quantize, fake_quantize_weight, scale_above
from distill.quantization.qat import RangeSearch
from tests.distill.quantization.test_qat import images


def best_range(*batches):
    search = RangeSearch()
    for look in (search.measure, search.observe):
        for batch in batches:
            look(batch)
    return search.best()


class TestArithmetic:
    def test_equals_quantize_and_dequantize_of_numpy(self):
        x = (
            torch.tensor([-200.0, -128.4, -127.5, -2.5, -0.5, 0.0, 0.5, 1.5, 126.5, 127.0, 127.6, 300.0])
            * 0.25
        )
        scale = np.float32(0.25)
        expected = np.clip(np.rint(x.numpy() / scale), -128, 127).astype(np.int8) * scale
        np.testing.assert_array_equal(fake_quantize(x, torch.tensor(0.25)), expected)
        assert expected.min() == -32.0

    def test_a_weight_has_a_grid_for_each_output_channel(self):
        weight = torch.randn(3, 2, 5, 5) * torch.tensor([1e-3, 1.0, 0.0]).view(3, 1, 1, 1)
        quantized = fake_quantize_weight(weight)
        largest = torch.from_numpy(np.abs(weight.numpy()).reshape(3, -1).max(1, keepdims=True))
        steps = (quantized.reshape(3, -1) / scale_above(largest / 127)).numpy()
        np.testing.assert_allclose(steps, np.rint(steps), atol=1e-4)
        assert np.abs(steps[:2]).max(1) == pytest.approx(127)
        assert (quantized[2] == 0).all()

    def test_scales_are_those_of_the_int8_model(self):
        scales = torch.logspace(-12, 7, 500, requires_grad=True)
        rounded = scale_above(scales)
        np.testing.assert_array_equal(rounded.detach().numpy(), qdq.scale_above(scales.detach().numpy()))
        rounded.sum().backward()
        assert (scales.grad == 1).all()

    def test_half_precision_is_quantized_in_float32(self):
        x = torch.linspace(-3, 3, 1001).bfloat16()
        quantized = fake_quantize(x, torch.tensor(0.0237))
        assert quantized.dtype == torch.bfloat16
        assert torch.equal(quantized, fake_quantize(x.float(), torch.tensor(0.0237)).bfloat16())

    def test_the_gradient_is_straight_within_the_grid_and_0_beyond(self):
        x = torch.tensor([-129.0, -128.0, -3.3, 0.0, 127.4, 127.6, 500.0], requires_grad=True)
        fake_quantize(x, torch.tensor(1.0)).sum().backward()
        assert x.grad.tolist() == [0, 1, 1, 1, 1, 0, 0]
        weight = torch.randn(4, 3, 3, 3, requires_grad=True)
        (fake_quantize_weight(weight) * 2).sum().backward()
        assert (weight.grad == 2).all()

    def test_the_scales_gradient_is_the_papers(self):
        x, scale = images(), torch.tensor(0.01, requires_grad=True)
        (fake_quantize(x, scale) * images(seed=3)).sum().backward()
        other = scale.detach().clone().requires_grad_()
        clipped = (x / other).clamp(-128.5, 127.5)  # rounded, these are the ends of the grid
        ends = clipped.detach().round().clamp(-128, 127)
        inside = (clipped.detach() == x / other.detach()).float()
        steps = ends + inside * (clipped - clipped.detach())
        (steps * other * images(seed=3)).sum().backward()
        torch.testing.assert_close(scale.grad, other.grad, rtol=1e-4, atol=0)

    def test_the_first_range_forgives_an_outlier_only_if_that_pays(self):
        x = torch.linspace(-1, 1, 10001)
        assert best_range(x) == pytest.approx(1.0)
        assert best_range(torch.cat([x.repeat(100), torch.tensor([8.0])])) < 8.0
        assert best_range(torch.zeros(5)) == 1.0

    def test_the_order_of_the_batches_does_not_matter(self):
        dark, x = torch.zeros(100), torch.linspace(-1, 1, 10001)
        faint = 1e-4 * x
        ranges = [best_range(*batches) for batches in ((dark, faint, x), (x, faint, dark), (faint, dark, x))]
        assert ranges == pytest.approx([1.0] * 3)

    def test_what_is_not_finite_in_any_batch_is_told(self):
        assert math.isnan(best_range(torch.ones(3), torch.tensor([1.0, torch.nan])))
        assert math.isnan(best_range(torch.ones(3), torch.tensor([torch.inf])))
