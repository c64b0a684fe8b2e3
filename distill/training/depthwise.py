"""Faster gradients of depthwise convolutions on CPUs.

oneDNN has fast kernels for the forward pass of depthwise convolutions, but computes their gradients by a reference
loop where they are dilated, and those of bf16 many times slower than those of float32. Both gradients are convolutions
themselves (Dumoulin & Visin, arXiv:1603.07285, §4), so here the fast kernels compute them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn
from torch.nn import functional as F


@contextmanager
def fast_depthwise(network: nn.Module, enabled: bool = True) -> Iterator[None]:
    """Within this context, the depthwise convolutions of `network` that run in training mode have faster gradients.

    Outputs are the same to the last bit; gradients are those of float32 convolutions, up to the order of additions.

    Args:
        network: on the CPU.
        enabled: False makes the context do nothing.
    """
    changed = _depthwise(network) if enabled else []
    for module in changed:
        module.forward = _faster(module, module.forward)
    try:
        yield
    finally:
        for module in changed:
            del module.forward  # uncovers the method of the class


def _depthwise(network: nn.Module) -> list[nn.Conv2d]:
    """The plain depthwise convolutions of a network, and those that timm pads as TensorFlow does."""
    return [
        module
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
        and type(module) in (nn.Conv2d, Conv2dSame)
        and module.groups == module.in_channels == module.out_channels > 1
        and module.bias is None
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and "forward" not in vars(module)
    ]


def _faster(module: nn.Conv2d, forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(image: Tensor) -> Tensor:
        if not (module.training and torch.is_grad_enabled()):
            return forward(image)
        if torch.is_autocast_enabled("cpu"):
            image = image.to(torch.get_autocast_dtype("cpu"))
        weight, padding = module.weight.to(image.dtype), module.padding
        if isinstance(module, Conv2dSame):
            image = pad_same(image, list(module.kernel_size), list(module.stride), list(module.dilation))
            padding = (0, 0)
        return _DepthwiseConv.apply(image, weight, module.stride, padding, module.dilation)

    return run


class _DepthwiseConv(torch.autograd.Function):
    """`F.conv2d` with as many groups as channels: N×C×H×W and C×1×k×l to N×C×h×w, of one floating type."""

    @staticmethod
    def forward(
        ctx: Any,
        image: Tensor,
        weight: Tensor,
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
    ) -> Tensor:
        ctx.save_for_backward(image, weight)
        ctx.options = stride, padding, dilation
        return F.conv2d(image, weight, None, stride, padding, dilation, len(weight))

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        image, weight = ctx.saved_tensors
        for_image, for_weight = ctx.needs_input_grad[:2]
        image_grad = _image_grad(grad_outputs[0], image, weight, *ctx.options) if for_image else None
        weight_grad = _weight_grad(grad_outputs[0], image, weight, *ctx.options) if for_weight else None
        return image_grad, weight_grad, None, None, None


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
