"""Encoders of U-Nets, and the blocks that they are built from."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from deploy.errors import UserError
from teacher.pspnet import conv_bn_relu


def separable(in_channels: int, out_channels: int, dilation: int = 1) -> nn.Sequential:
    """A depthwise 3×3, then a pointwise 1×1 convolution, each with batch norm and ReLU; keeps height and width."""
    return nn.Sequential(
        nn.Conv2d(
            in_channels, in_channels, 3, padding=dilation, dilation=dilation, groups=in_channels, bias=False
        ),
        nn.BatchNorm2d(in_channels),
        nn.ReLU(inplace=True),
        *conv_bn_relu(in_channels, out_channels, 1),
    )


def block(in_channels: int, out_channels: int, extra: int = 0, middle: int | None = None) -> nn.Sequential:
    """Two 3×3 convolutions, with `middle` channels between them, then `extra` depthwise-separable ones."""
    middle = out_channels if middle is None else middle
    return nn.Sequential(
        conv_bn_relu(in_channels, middle, 3),
        conv_bn_relu(middle, out_channels, 3),
        *(separable(out_channels, out_channels) for _ in range(extra)),
    )


class Encoder(nn.Module):
    """N×C×H×W → one map per entry of `widths`, with that many channels; each is half the size of the previous one."""

    def __init__(self, in_channels: int, widths: Sequence[int], extra: int = 0) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(block(a, b, extra) for a, b in pairwise([in_channels, *widths]))
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps: list[Tensor] = []
        for level, blk in enumerate(self.blocks):
            x = blk(self.pool(x) if level else x)
            maps.append(x)
        return maps


class FusionEncoder(nn.Module):
    """One `Encoder` per modality, whose maps are joined at every level.

    The image holds the channels of the first modality, then those of the second; each encoder sees its own only. At
    every level the two maps are concatenated, and a 1×1 convolution with batch norm and ReLU halves the channels again.

    Args:
        in_channels: channels of the image.
        modalities: channels of each modality, 1 or more.
        widths: channels of the joined maps, finest first.
        extra: depthwise-separable convolutions per block.

    Raises:
        UserError: a modality has no channel, or the two do not add up to `in_channels`.
    """

    def __init__(
        self, in_channels: int, modalities: tuple[int, int], widths: Sequence[int], extra: int = 0
    ) -> None:
        super().__init__()
        if min(modalities) < 1 or sum(modalities) != in_channels:
            raise UserError(
                f"modalities {modalities[0]} + {modalities[1]}: give two numbers of 1 or more that add up to the"
                f" {in_channels} channels of the image"
            )
        self.modalities = modalities
        self.first, self.second = (Encoder(channels, widths, extra) for channels in modalities)
        self.join = nn.ModuleList(conv_bn_relu(2 * width, width, 1) for width in widths)

    def forward(self, x: Tensor) -> list[Tensor]:
        first, second = x.split(self.modalities, dim=1)
        pairs = zip(self.first(first), self.second(second), strict=True)
        return [join(torch.cat(pair, dim=1)) for join, pair in zip(self.join, pairs, strict=True)]


class ChannelWeights(nn.Module):
    """Squeeze-and-excitation (Hu et al., CVPR 2018, arXiv:1709.01507) on an image: N×C×H×W → N×C×H×W.

    Two 1×1 convolutions compute a factor in 0..2 for each channel from the means of all channels. Factors start near 1;
    the paper's range of 0..1 would start at ½ and so halve a normalized image.
    """

    def __init__(self, channels: int, hidden: int = 8) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, hidden, 1)
        self.excite = nn.Conv2d(hidden, channels, 1)
        nn.init.zeros_(self.excite.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3), keepdim=True)
        return x * (2 * torch.sigmoid(self.excite(torch.relu(self.squeeze(means)))))
