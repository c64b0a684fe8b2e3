"""Faster gradients of depthwise convolutions on CPUs.

oneDNN has fast kernels for the forward pass of depthwise convolutions, but computes their gradients by a reference
loop where they are dilated, and those of bf16 many times slower than those of float32. Both gradients are convolutions
themselves (Dumoulin & Visin, arXiv:1603.07285, §4), so here the fast kernels compute them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.utils import _pair
from torch.overrides import TorchFunctionMode


@contextmanager
def fast_depthwise(network: nn.Module, enabled: bool = True) -> Iterator[None]:
    """Within this context, depthwise convolutions on the CPU that record a gradient have a faster one.

    Outputs are the same to the last bit; gradients are those of float32 convolutions, up to the order of additions.
    Convolutions are recognized by their call, so weights may be computed (as in simulated INT8) and images padded.

    Args:
        network: that is run within this context; without a depthwise convolution in it nothing changes.
        enabled: False makes the context do nothing.
    """
    if enabled and any(isinstance(m, nn.Conv2d) and m.groups == m.in_channels > 1 for m in network.modules()):
        with _FastDepthwise():
            yield
    else:
        yield


class _Call(NamedTuple):
    """Arguments of `F.conv2d`."""

    input: Tensor
    weight: Tensor
    bias: Tensor | None = None
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    groups: int = 1

    @property
    def is_depthwise(self) -> bool:
        """Whether each output channel is made from one channel, on the CPU and with zeros around."""
        return (
            self.groups == len(self.weight) == self.input.shape[-3] > 1
            and self.input.ndim == 4
            and self.input.device.type == "cpu"
            and not isinstance(self.padding, str)
        )


class _FastDepthwise(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.conv2d and torch.is_grad_enabled():
            call = _Call(*args, **kwargs)
            if call.is_depthwise:
                tensors = call[:3]
                if torch.is_autocast_enabled("cpu"):
                    kind = torch.get_autocast_dtype("cpu")
                    tensors = tuple(None if tensor is None else tensor.to(kind) for tensor in tensors)
                return _DepthwiseConv.apply(*tensors, *map(_pair, call[3:6]))
        return func(*args, **kwargs)


class _DepthwiseConv(torch.autograd.Function):
    """`F.conv2d` with as many groups as channels: N×C×H×W and C×1×k×l to N×C×h×w, of one floating type."""

    @staticmethod
    def forward(
        ctx: Any,
        image: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
    ) -> Tensor:
        ctx.save_for_backward(image, weight)
        ctx.options = stride, padding, dilation
        return F.conv2d(image, weight, bias, stride, padding, dilation, len(weight))

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (image, weight) = grad_outputs, ctx.saved_tensors
        for_image, for_weight, for_bias = ctx.needs_input_grad[:3]
        image_grad = _image_grad(grad, image, weight, *ctx.options) if for_image else None
        weight_grad = _weight_grad(grad, image, weight, *ctx.options) if for_weight else None
        bias_grad = _wide(grad).sum((0, 2, 3)).to(weight.dtype) if for_bias else None
        return image_grad, weight_grad, bias_grad, None, None, None


def _image_grad(
    grad: Tensor, image: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any
) -> Tensor:
    """At stride 1 the convolution of the output's gradient with the turned kernel."""
    rest = [d * (k - 1) - p for d, k, p in zip(dilation, weight.shape[2:], padding, strict=True)]
    if stride == (1, 1) and min(rest) >= 0:
        return F.conv2d(grad, weight.flip(2, 3), None, 1, rest, dilation, len(weight))
    return _native(grad, image, weight, stride, padding, dilation, 0)


def _weight_grad(
    grad: Tensor, image: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any
) -> Tensor:
    """For a dilated kernel the convolution of each image's channels with their gradients, at the dilation's stride."""
    if max(dilation) == 1:
        return _native(grad, image, weight, stride, padding, dilation, 1)
    channels = image.shape[0] * image.shape[1]
    planes = _wide(image).reshape(1, channels, *image.shape[2:])
    kernels = _wide(grad).reshape(channels, 1, *grad.shape[2:])
    # rows and columns that a stride left over give further cells, which belong to no weight
    found = F.conv2d(planes, kernels, None, dilation, padding, stride, channels)
    rows, columns = weight.shape[2:]
    cells = found[:, :, :rows, :columns].reshape(*image.shape[:2], 1, rows, columns)
    return cells.sum(0).to(weight.dtype)


def _native(
    grad: Tensor, image: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any, which: int
) -> Tensor:
    """torch's own gradient for the image (0) or the weight (1), in float32 at least."""
    found = torch.ops.aten.convolution_backward(
        *(_wide(grad), _wide(image), _wide(weight), None),
        *(stride, padding, dilation, False, (0, 0), len(weight)),
        [which == 0, which == 1, False],
    )
    return found[which].to(weight.dtype)


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()
