"""EdgeNet: plain 3×3 convolutions, which saturate integer units and tensor cores where depthwise ones do not.

Residual blocks (He et al., CVPR 2016, arXiv:1512.03385) down to stride 32, global context from a few pooled cells, and
a light top-down decoder (Lin et al., CVPR 2017, arXiv:1612.03144) to stride 8, or to stride 4 or 2 for details. In
training each 3×3 convolution has a 1×1 branch beside it (`student.branches`).
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from deploy.errors import UserError
from student.branches import Branches, Pointwise
from teacher.pooling import exact_adaptive_avg_pool
from teacher.pspnet import Output, aux_head

CONTEXT_BINS = (1, 3)
"""Cells along each axis of the pooled context."""
STAGES = 4
DEPTHS = (1, 1, 1, 1)
"""Residual blocks of each stage by default: layers take time in INT8 even where they have few operations."""
FORMER_DEPTHS = (2, 2, 2, 2)
"""Blocks of each stage in the networks of files that do not record them: those written while this was the default."""
STRIDES = (2, 4, 8)
"""Strides that the output can have: of the stem and of the first two stages."""
BLOCK = re.compile(r"(?:backbone\.)?stages\.(\d+)\.(\d+)\.")
"""Stage and block in the name of a tensor."""


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
    """N×C×H×W → five maps: of the stem at stride 2, and of the stages at strides 4, 8, 16 and 32 (or 16).

    Args:
        in_channels: C.
        width: channels w of the stem and of the first stage; the others have 2w, 4w and 8w.
        depths: residual blocks of each stage.
        stride: of the last map.
    """

    def __init__(self, in_channels: int, width: int, depths: Sequence[int], stride: int) -> None:
        super().__init__()
        self.stem = Branches(in_channels, width, stride=2)
        self.widths = [width, *(width * 2**stage for stage in range(STAGES))]
        """Channels of each map."""
        strides = (2, 2, 2, stride // 16)
        self.stages = nn.ModuleList(
            _stage(before, after, depth, step)
            for (before, after), depth, step in zip(pairwise(self.widths), depths, strides, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [F.relu(self.stem(x))]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
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
    """The backbone's maps → one map N×D×h×w, at the stride of the finest of them that takes part.

    Args:
        widths: channels of the maps.
        finest: index of the finest map that takes part.
        channels: D.
        convolutions: 3×3 convolutions of the sum of all maps.
    """

    def __init__(self, widths: Sequence[int], finest: int, channels: int, convolutions: int) -> None:
        super().__init__()
        self.finest = finest
        self.context = Context(widths[-1], channels)
        self.laterals = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in widths[finest:-1])
        layers = [(Branches(channels, channels), nn.ReLU()) for _ in range(convolutions)]
        self.head = nn.Sequential(*(layer for pair in layers for layer in pair))

    def forward(self, maps: list[Tensor]) -> Tensor:
        x = self.context(maps[-1])
        for lateral, fine in zip(reversed(self.laterals), reversed(maps[self.finest : -1]), strict=True):
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
        output_stride: stride of the output maps, 8, 4 or 2.
        detail: output maps at stride 4 where `output_stride` is 8.
        depths: residual blocks of each of the four stages.
        stride: stride of the last stage, 32 or 16.
        channels: channels D of the decoder; by default 2w, and w at stride 2, where they cost most.
        convolutions: 3×3 convolutions of the decoder.

    Raises:
        UserError: an option has none of these values; `width`, `channels` or a depth is below 1.
    """

    def __init__(
        self,
        in_channels: int,
        num_outputs: int,
        *,
        width: int = 24,
        dropout: float = 0.1,
        aux: bool = True,
        output_stride: int = 8,
        detail: bool = False,
        depths: Sequence[int] = DEPTHS,
        stride: int = 32,
        channels: int | None = None,
        convolutions: int = 2,
    ) -> None:
        super().__init__()
        if detail and output_stride == 8:
            output_stride = 4
        if channels is None:
            channels = width if output_stride == 2 else 2 * width
        _check(width, output_stride, depths, stride, channels, convolutions)
        self.backbone = Backbone(in_channels, width, depths, stride)
        self.decoder = Decoder(self.backbone.widths, STRIDES.index(output_stride), channels, convolutions)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, num_outputs, 1)
        self.aux_head = aux_head(4 * width, num_outputs, dropout) if aux else None

    def forward(self, x: Tensor) -> Output:
        """Run the network.

        Args:
            x: normalized images of any size, floating N×C×H×W.

        Returns:
            Logits N×K×⌈H/s⌉×⌈W/s⌉, auxiliary logits at stride 16, and the features `layer3` (4w channels, stride 16),
            `layer4` (8w, stride 32 or 16) and `head` (the classifier's input, D).
        """
        maps = self.backbone(x)
        head = self.decoder(maps)
        aux = self.aux_head(maps[3]) if self.training and self.aux_head is not None else None
        features = {"layer3": maps[3], "layer4": maps[4], "head": head}
        return Output(self.classifier(self.dropout(head)), aux, features)


def edge_net(width: str, in_channels: int, num_outputs: int, **options: Any) -> EdgeNet:
    """`EdgeNet` of a width given as text, as in `edge/20`, with its other options.

    Raises:
        UserError: the text is no positive whole number, or an option is wrong.
    """
    if not width.isdecimal():
        raise UserError(f"edge/{width}: give the width as a number, such as edge/24")
    return EdgeNet(in_channels, num_outputs, width=int(width), **options)


def depths_of(names: Iterable[str]) -> tuple[int, ...] | None:
    """Residual blocks of each stage of the EdgeNet whose tensors have these names; None for other networks."""
    blocks = {match.groups() for name in names if (match := BLOCK.match(name))}
    counts = Counter(int(stage) for stage, _ in blocks)
    return tuple(counts[stage] for stage in range(STAGES)) if counts.keys() == {*range(STAGES)} else None


class Size(NamedTuple):
    """A listed width."""

    name: str
    width: int


SIZES = (Size("edge-nano", 16), Size("edge-small", 24), Size("edge-medium", 32))


def _enlarged(x: Tensor, like: Tensor) -> Tensor:
    """N×C×h×w resized bilinearly to the height and width of another map; as it is where these are equal."""
    size = like.shape[-2:]
    return x if x.shape[-2:] == size else F.interpolate(x, size, mode="bilinear", align_corners=False)


def _stage(before: int, after: int, depth: int, stride: int) -> nn.Sequential:
    """Residual blocks, of which the first changes channels and size."""
    return nn.Sequential(Block(before, after, stride), *(Block(after, after) for _ in range(depth - 1)))


def _check(
    width: int, output_stride: int, depths: Sequence[int], stride: int, channels: int, convolutions: int
) -> None:
    for name, value in {"width": width, "channels": channels, "convolutions": convolutions}.items():
        if value < 1:
            raise UserError(f"edge: {name} {value} must be 1 or more")
    if len(depths) != STAGES or min(depths) < 1:
        raise UserError(f"edge: depths {tuple(depths)}: give {STAGES} numbers of 1 or more")
    for name, value, known in (("output_stride", output_stride, STRIDES), ("stride", stride, (16, 32))):
        if value not in known:
            raise UserError(f"edge: {name} {value} must be one of {', '.join(map(str, known))}")
