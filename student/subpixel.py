"""Transposed convolutions rewritten as plain ones: the same function in a form that runs in INT8.

ONNX Runtime has no transposed convolutions in INT8, and slow ones in float. At stride s, output pixels fall into s·s
phases by the remainders of their row and column, and each phase is a plain convolution of the input with every s-th tap
of the kernel (Shi et al., CVPR 2016, arXiv:1609.05158). So one convolution with s·s times the channels computes all
phases, a pixel shuffle interleaves them, and a slice removes what the padding cuts off. A kernel side of k taps becomes
one of ⌈k/s⌉ taps, reversed; taps that are missing up to a multiple of s are 0.

Measured at 300×300 on one core of a CPU without VNNI, as medians of 25 interleaved runs in fp32 and INT8: GG-CNN takes
37 and 38 ms with transposed convolutions, 25 and 20 ms without; GR-ConvNet, where they are a small part, 617 and 569 ms
with, 616 and 552 ms without.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from student.sizes import size_of


def subpixel_form(network: nn.Module) -> nn.Module:
    """Return a copy of a network for inference that computes the same without transposed convolutions.

    Those in two dimensions with equal strides and without groups or dilation are replaced. In an `nn.Sequential`, the
    batch norm and the ReLU that follow one are merged into its replacement.

    Returns:
        The copy, in evaluation mode; `network` itself if it has nothing to replace.
    """
    if not any(map(_replaceable, network.modules())):
        return network
    network = copy.deepcopy(network).eval()
    for parent in list(network.modules()):
        if isinstance(parent, nn.Sequential):
            _replace_in(parent)
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.ConvTranspose2d) and _replaceable(child):
                parent.set_submodule(name, Subpixel(child, nn.Identity()))
    return network


@dataclass(frozen=True)
class Line:
    """One axis of a transposed convolution: `kernel` taps, `stride`, `padding` and `more` cells of output padding."""

    kernel: int
    stride: int
    padding: int
    more: int

    @property
    def taps(self) -> int:
        """Kernel taps of the plain convolution."""
        return -(-self.kernel // self.stride)

    def margins(self) -> tuple[int, int]:
        """Zeros that the plain convolution needs before and behind its input, in cells, at least 0."""
        first = self.padding // self.stride
        last = (self.kernel - 1 - self.padding + self.more) // self.stride  # beyond that of the last cell
        return max(self.taps - 1 - first, 0), max(last, 0)

    def start(self) -> int:
        """Index of the output's first pixel after the shuffle, with the larger margin as padding on both sides."""
        return self.padding - self.stride * (self.taps - 1 - max(self.margins()))

    def size(self, cells: int) -> int:
        """Output pixels of an input of `cells`."""
        return (cells - 1) * self.stride - 2 * self.padding + self.kernel + self.more


class Subpixel(nn.Module):
    """A transposed convolution and the activation that follows it, as a sub-pixel convolution: N×C×h×w → N×K×H×W.

    Args:
        transposed: the layer whose weights are taken over.
        activation: an elementwise module, `nn.Identity` for none.
    """

    def __init__(self, transposed: nn.ConvTranspose2d, activation: nn.Module) -> None:
        super().__init__()
        self.lines = _line(transposed, 0), _line(transposed, 1)
        self.stride = self.lines[0].stride
        self.convolution = nn.Conv2d(
            transposed.in_channels,
            transposed.out_channels * self.stride**2,
            (self.lines[0].taps, self.lines[1].taps),
            padding=(max(self.lines[0].margins()), max(self.lines[1].margins())),
            bias=transposed.bias is not None,
        ).to(transposed.weight)
        with torch.no_grad():
            self.convolution.weight.copy_(_phases(transposed.weight, self.lines))
            if self.convolution.bias is not None and transposed.bias is not None:
                self.convolution.bias.copy_(transposed.bias.repeat_interleave(self.stride**2))
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        # the activation comes before the shuffle: compilers fuse it with the convolution
        shuffled = F.pixel_shuffle(self.activation(self.convolution(x)), self.stride)
        rows, columns = (
            slice(line.start(), line.start() + line.size(cells))
            for line, cells in zip(self.lines, size_of(x), strict=True)
        )
        return shuffled[..., rows, columns]


def _replaceable(module: nn.Module) -> bool:
    if not isinstance(module, nn.ConvTranspose2d) or module.groups != 1 or module.dilation != (1, 1):
        return False
    fits = all(line.padding < line.kernel for line in (_line(module, 0), _line(module, 1)))
    return fits and module.stride[0] == module.stride[1]


def _line(transposed: nn.ConvTranspose2d, axis: int) -> Line:
    values = transposed.kernel_size, transposed.stride, transposed.padding, transposed.output_padding
    return Line(*(int(value[axis]) for value in values))


def _phases(weight: Tensor, lines: tuple[Line, Line]) -> Tensor:
    """Weights C×K×k×k → (K·s·s)×C×⌈k/s⌉×⌈k/s⌉, the phases of an output channel in the order of `pixel_shuffle`."""
    rows, columns = lines
    filled = F.pad(
        weight,
        (0, columns.taps * columns.stride - columns.kernel, 0, rows.taps * rows.stride - rows.kernel),
    )
    split = filled.unflatten(3, (columns.taps, columns.stride)).unflatten(2, (rows.taps, rows.stride))
    inputs_last = split.flip(2, 4).permute(1, 3, 5, 0, 2, 4)  # K, phase row, phase column, C, taps
    return inputs_last.flatten(0, 2)


def _replace_in(sequence: nn.Sequential) -> None:
    """Replace each transposed convolution of a sequence together with the batch norm and ReLU that follow it."""
    layers = list(sequence)
    for place, layer in enumerate(layers):
        if not isinstance(layer, nn.ConvTranspose2d) or not _replaceable(layer):
            continue
        activation, after = nn.Identity(), place + 1
        if after < len(layers) and isinstance(norm := layers[after], nn.BatchNorm2d):
            layer = fuse_conv_bn_eval(layer, norm, transpose=True)
            sequence[after] = nn.Identity()
            after += 1
        if after < len(layers) and isinstance(layers[after], nn.ReLU):
            activation, sequence[after] = layers[after], nn.Identity()
        sequence[place] = Subpixel(layer, activation)
