"""Convolutions of two branches in training, and the one convolution that computes the same at inference.

A 3×3 convolution has a 1×1 branch beside it, each with its own batch norm (Ding et al., CVPR 2021, arXiv:2101.03697,
without the identity branch, whose batch norm quantizes badly: Chu et al., AAAI 2024, arXiv:2212.01593).
`fold_branches` makes one convolution with a bias of them.
"""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

N = TypeVar("N", bound=nn.Module)


class Pointwise(nn.Module):
    """A 1×1 convolution and a batch norm: N×C×h×w → N×O×⌈h/s⌉×⌈w/s⌉.

    The stride is a slice: in channels-last memory, the weight gradient of a strided 1×1 convolution of fewer than 16
    channels writes beyond its memory on some CPUs (torch 2.14.1).

    Args:
        in_channels: C.
        out_channels: O.
        stride: s, 1 or 2.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.convolution = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        return self.norm(self.convolution(x))

    def folded(self) -> nn.Conv2d:
        """One strided 1×1 convolution that computes the same in evaluation mode."""
        point = fuse_conv_bn_eval(self.convolution.eval(), self.norm.eval())
        point.stride = (self.stride, self.stride)
        return point


class Branches(nn.Module):
    """A 3×3 and a 1×1 convolution, each with a batch norm, added up: N×C×h×w → N×O×⌈h/s⌉×⌈w/s⌉.

    Args:
        in_channels: C.
        out_channels: O.
        stride: s, 1 or 2.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.wide = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.wide_norm = nn.BatchNorm2d(out_channels)
        self.point = Pointwise(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.wide_norm(self.wide(x)) + self.point(x)

    def folded(self) -> nn.Conv2d:
        """One 3×3 convolution that computes the same in evaluation mode."""
        wide = fuse_conv_bn_eval(self.wide.eval(), self.wide_norm.eval())
        point = self.point.folded()
        assert wide.bias is not None
        assert point.bias is not None
        with torch.no_grad():
            wide.weight += F.pad(point.weight, (1, 1, 1, 1))
            wide.bias += point.bias
        return wide


def fold_branches(network: N) -> N:
    """Return a copy of a network for inference that computes the same, each `Branches` as one convolution."""
    folded = copy.deepcopy(network).eval()
    for kind in (Branches, Pointwise):  # the outer ones first
        for name, module in list(folded.named_modules()):
            if isinstance(module, kind):
                folded.set_submodule(name, module.folded())
    return folded
