"""The arithmetic of an INT8 model in torch, and its gradients.

A grid is the set of values that a quantized tensor can have: q·scale with q = round(x / scale), halves to even, within
−128 … 127 and with zero point 0. Scales are float16 numbers, as in `deploy.quantize`.
"""

import math
from typing import Any

import torch
from torch import Tensor

from deploy.quantize.qdq import SMALLEST_SCALE

LOW, HIGH = -128, 127
"""Bounds of int8. A scale is a range divided by `HIGH`, so only saturated activations become −128."""


class _FakeQuantize(torch.autograd.Function):
    """Straight-through estimator: gradient 1 within the grid, 0 beyond it (Esser et al., arXiv:1902.08153).

    As an `autograd.Function` it stores only x for the backward pass, and no other tensor of that size.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(x, scale)
        # in float32 for any dtype of x, like the engine
        return ((x.float() / scale).round_().clamp_(LOW, HIGH) * scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, scale = ctx.saved_tensors
        exact = x.float() / scale
        steps = exact.round()
        inside = (steps >= LOW) & (steps <= HIGH)
        if not ctx.needs_input_grad[1]:
            return grad * inside, None
        slope = torch.where(inside, steps - exact, steps.clamp_(LOW, HIGH))
        return grad * inside, (slope * grad).sum()


def fake_quantize(x: Tensor, scale: Tensor) -> Tensor:
    """Quantize a tensor to int8 and dequantize it, in its own shape and dtype.

    Args:
        x: of any shape; its gradient passes where round(x/scale) is within −128 … 127.
        scale: float32, positive; 0-d, or a shape that broadcasts to x if it needs no gradient.
    """
    return _FakeQuantize.apply(x, scale)  # pyright: ignore[reportReturnType]


def fake_quantize_weight(weight: Tensor) -> Tensor:
    """Fake-quantize a weight K×C×h×w for each output channel, with scale max |w| / 127; all gradients pass."""
    largest = weight.detach().float().abs().amax((1, 2, 3), keepdim=True)
    return fake_quantize(weight, scale_above(largest / HIGH))


def scale_above(scale: Tensor) -> Tensor:
    """The smallest float16 number that is not below a scale, as float32; all gradients pass.

    The rule of `deploy.quantize.qdq.scale_above`.
    """
    exact = scale.detach().float().clamp(min=SMALLEST_SCALE)
    half = exact.half()
    half = torch.where(
        half.float() < exact, torch.nextafter(half, torch.full_like(half, math.inf)), half
    ).float()
    return scale + (torch.where(half.isfinite(), half, exact) - scale.detach())
