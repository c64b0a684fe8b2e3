"""EdgeNet: plain 3×3 convolutions, which saturate integer units and tensor cores where depthwise ones do not.

Residual blocks (He et al., CVPR 2016, arXiv:1512.03385) down to stride 32, global context from a few pooled cells, and
a light top-down decoder (Lin et al., CVPR 2017, arXiv:1612.03144) to stride 8, or to stride 4 with `detail`. In
training each 3×3 convolution has a 1×1 branch beside it, each with its own batch norm (Ding et al., CVPR 2021,
arXiv:2101.03697, without the identity branch, whose batch norm quantizes badly: Chu et al., AAAI 2024,
arXiv:2212.01593). `fold_branches` makes one convolution with a bias of them.
"""

import copy
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from deploy.errors import UserError
from teacher.pooling import exact_adaptive_avg_pool
from teacher.pspnet import Output, aux_head

BLOCKS = 2
"""Residual blocks of each of the four stages."""
CONTEXT_BINS = (1, 3)
"""Cells along each axis of the pooled context."""
MULTIPLE = 2
"""Channels of the decoder, relative to the width."""


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


class Block(nn.Module):
    """A residual block of two 3×3 convolutions; a 1×1 convolution is the shortcut where size or channels change."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.first = Branches(in_channels, out_channels, stride)
        self.second = Branches(out_channels, out_channels)
        self.shortcut = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = Pointwise(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


class Backbone(nn.Module):
    """N×C×H×W → maps at strides 4, 8, 16 and 32 with w, 2w, 4w and 8w channels, where w is the width."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.stem = Branches(in_channels, width, stride=2)
        widths = [width, *(width * 2**stage for stage in range(4))]
        self.stages = nn.ModuleList(
            nn.Sequential(Block(before, after, stride=2), *(Block(after, after) for _ in range(BLOCKS - 1)))
            for before, after in pairwise(widths)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        x = F.relu(self.stem(x))
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class Context(nn.Module):
    """Pyramid pooling of few cells, added up instead of concatenated: N×C×h×w → N×O×h×w, h and w fixed at export.

    A 1×1 convolution of the map, plus one of each average of it, upsampled: what a 1×1 convolution of their
    concatenation computes, without the copy, and with the averages' part at the size of their cells.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.direct = nn.Conv2d(in_channels, out_channels, 1)
        self.pooled = nn.ModuleList(nn.Conv2d(in_channels, out_channels, 1) for _ in CONTEXT_BINS)

    def forward(self, x: Tensor) -> Tensor:
        result = self.direct(x)
        for bins, convolution in zip(CONTEXT_BINS, self.pooled, strict=True):
            result = result + _enlarged(convolution(exact_adaptive_avg_pool(x, bins)), result)
        return F.relu(result)


class Decoder(nn.Module):
    """Maps of strides 4 (with `detail`), 8, 16 and 32 → one map N×D×h×w at the finest of these strides."""

    def __init__(self, width: int, detail: bool) -> None:
        super().__init__()
        self.channels = MULTIPLE * width
        self.first = 0 if detail else 1
        self.context = Context(8 * width, self.channels)
        self.laterals = nn.ModuleList(
            nn.Conv2d(width * 2**stage, self.channels, 1) for stage in range(self.first, 3)
        )
        self.head = nn.Sequential(
            Branches(self.channels, self.channels),
            nn.ReLU(),
            Branches(self.channels, self.channels),
            nn.ReLU(),
        )

    def forward(self, maps: list[Tensor]) -> Tensor:
        x = self.context(maps[-1])
        for lateral, fine in zip(reversed(self.laterals), reversed(maps[self.first : 3]), strict=True):
            beside = lateral(fine)
            x = beside + _enlarged(x, beside)
        return self.head(x)


class EdgeNet(nn.Module):
    """The network.

    Args:
        in_channels: channels C of the normalized image.
        num_outputs: output maps K.
        width: channels w of the first stage; 16, 24 and 32 are edge-nano, edge-small and edge-medium.
        dropout: dropout rate before the classifier.
        aux: build the auxiliary head on layer3.
        detail: output maps at stride 4 instead of 8.

    Raises:
        UserError: `width` is below 1.
    """

    def __init__(
        self,
        in_channels: int,
        num_outputs: int,
        *,
        width: int = 24,
        dropout: float = 0.1,
        aux: bool = True,
        detail: bool = False,
    ) -> None:
        super().__init__()
        if width < 1:
            raise UserError(f"edge: width {width} must be 1 or more")
        self.backbone = Backbone(in_channels, width)
        self.decoder = Decoder(width, detail)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(self.decoder.channels, num_outputs, 1)
        self.aux_head = aux_head(4 * width, num_outputs, dropout) if aux else None

    def forward(self, x: Tensor) -> Output:
        """Run the network.

        Args:
            x: normalized images of any size, floating N×C×H×W.

        Returns:
            Logits N×K×⌈H/8⌉×⌈W/8⌉ (stride 4 with `detail`), auxiliary logits at stride 16, and the features `layer3`
            (4w channels, stride 16), `layer4` (8w, stride 32) and `head` (the classifier's input, 2w).
        """
        maps = self.backbone(x)
        head = self.decoder(maps)
        aux = self.aux_head(maps[2]) if self.training and self.aux_head is not None else None
        features = {"layer3": maps[2], "layer4": maps[3], "head": head}
        return Output(self.classifier(self.dropout(head)), aux, features)


def edge_net(
    width: str,
    in_channels: int,
    num_outputs: int,
    *,
    dropout: float = 0.1,
    aux: bool = True,
    detail: bool = False,
) -> EdgeNet:
    """`EdgeNet` of a width given as text, as in `edge/20`.

    Raises:
        UserError: the text is no positive whole number.
    """
    if not width.isdecimal():
        raise UserError(f"edge/{width}: give the width as a number, such as edge/24")
    return EdgeNet(in_channels, num_outputs, width=int(width), dropout=dropout, aux=aux, detail=detail)


def fold_branches(network: EdgeNet) -> EdgeNet:
    """Return a copy of a network for inference that computes the same, each `Branches` as one convolution."""
    folded = copy.deepcopy(network).eval()
    for kind in (Branches, Pointwise):  # the outer ones first
        for name, module in list(folded.named_modules()):
            if isinstance(module, kind):
                folded.set_submodule(name, module.folded())
    return folded


class Size(NamedTuple):
    """A listed width."""

    name: str
    width: int


SIZES = (Size("edge-nano", 16), Size("edge-small", 24), Size("edge-medium", 32))


def _enlarged(x: Tensor, like: Tensor) -> Tensor:
    """N×C×h×w resized bilinearly to the height and width of another map; as it is where these are equal."""
    size = like.shape[-2:]
    return x if x.shape[-2:] == size else F.interpolate(x, size, mode="bilinear", align_corners=False)
