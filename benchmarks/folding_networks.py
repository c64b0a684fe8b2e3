"""The forms of networks that `benchmarks/folding.py` compares, and networks of one layer that measure the machine."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from student import unet
from student.deeplab import DeepLabV3Plus, DilatedPyramid
from teacher.pspnet import Output


class SplitConvolution(nn.Module):
    """A convolution of a concatenation as a sum of convolutions: the maps of its parts → N×O×h×w.

    Args:
        convolution: the convolution.
        widths: channels of the parts.
    """

    def __init__(self, convolution: nn.Conv2d, widths: Sequence[int]) -> None:
        super().__init__()
        self.padding = convolution.padding
        pieces = convolution.weight.detach().split(list(widths), dim=1)
        self.weights = nn.ParameterList(piece.clone() for piece in pieces)
        self.bias = convolution.bias

    def forward(self, parts: Sequence[Tensor]) -> Tensor:
        result = None
        for part, weight in zip(parts, self.weights, strict=True):
            one = F.conv2d(part, weight, self.bias if result is None else None, padding=self.padding)  # pyright: ignore[reportArgumentType]
            result = one if result is None else result + one
        assert result is not None
        return result


class SplitPyramid(nn.Module):
    """DeepLab's pyramid whose projection is split; the mean over the map is projected before it is spread."""

    def __init__(self, pyramid: DilatedPyramid) -> None:
        super().__init__()
        self.branches, self.mean = pyramid.branches, pyramid.mean
        fused, self.activation = _fused(pyramid.project)
        count = len(self.branches) + 1
        self.project = SplitConvolution(fused, [fused.in_channels // count] * count)

    def forward(self, x: Tensor) -> Tensor:
        mean = self.mean(x.mean((2, 3), keepdim=True))
        return self.activation(self.project([*(branch(x) for branch in self.branches), mean]))


class SplitBlock(nn.Module):
    """A block of a U-Net's decoder whose first convolution reads the skip and the map from below by itself."""

    def __init__(self, block: nn.Module, skip: int) -> None:
        super().__init__()
        assert isinstance(block, nn.Sequential)
        first, *rest = block
        fused, activation = _fused(first)
        self.first = SplitConvolution(fused, [skip, fused.in_channels - skip])
        self.rest = nn.Sequential(activation, *rest)

    def forward(self, parts: Sequence[Tensor]) -> Tensor:
        return self.rest(self.first(parts))


class SplitDecoder(nn.Module):
    """The decoder of a U-Net without concatenations."""

    def __init__(self, decoder: unet.Decoder, skips: Sequence[int]) -> None:
        super().__init__()
        self.ups = decoder.ups
        self.blocks = nn.ModuleList(
            SplitBlock(block, skip) for block, skip in zip(decoder.blocks, skips, strict=True)
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        *skips, x = maps
        for up, block, skip in zip(self.ups, self.blocks, reversed(skips), strict=True):
            x = block([skip, up(x)])
        return x


def split(network: nn.Module) -> nn.Module:
    """Replace convolutions of concatenations in a DeepLabV3+ or a U-Net, in place, in evaluation mode."""
    network.eval()
    if isinstance(network, DeepLabV3Plus):
        network.pyramid = SplitPyramid(network.pyramid)  # pyright: ignore[reportAttributeAccessIssue]
    elif isinstance(network, unet.UNet):
        with torch.no_grad():
            maps = network.encoder(torch.zeros(1, network.in_channels, 64, 64).to(next(network.parameters())))
        skips = [one.shape[1] for one in reversed(maps[:-1])]
        network.decoder = SplitDecoder(network.decoder, skips)  # pyright: ignore[reportAttributeAccessIssue]
    return network


def _fused(block: nn.Module) -> tuple[nn.Conv2d, nn.Module]:
    """The convolution of a `conv_bn_relu` block with its batch norm merged into it, and the activation."""
    assert isinstance(block, nn.Sequential)
    convolution, norm, activation = block
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    return fuse_conv_bn_eval(convolution, norm), activation


class Chain(nn.Module):
    """Equal convolutions one after the other, behind one that makes the channels: nothing but their speed counts."""

    def __init__(self, channels: int, kernel: int, stride: int, count: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, stride, stride)
        self.chain = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(channels, channels, kernel, padding=kernel // 2), nn.ReLU())
                for _ in range(count)
            )
        )
        self.classifier = nn.Conv2d(channels, 2, 1)

    def forward(self, x: Tensor) -> Output:
        return Output(self.classifier(self.chain(F.relu(self.stem(x)))), None)


def eager(network: nn.Module, image: np.ndarray) -> Callable[[], object]:
    """A call of the network in torch as one runs it without exporting: fp32, normalized image, no gradients."""
    batch = torch.from_numpy((image.astype(np.float32) - 120) / 60).permute(2, 0, 1)[None].contiguous()

    def call() -> object:
        with torch.inference_mode():
            return network(batch).logits

    return call
