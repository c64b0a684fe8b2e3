"""PSPNet: pyramid scene parsing network (Zhao et al., CVPR 2017, arXiv:1612.01105).

As in the paper: a dilated backbone, pooling at 1, 2, 3 and 6 bins, a 3×3 head of 512 channels with dropout, and an
auxiliary head on layer3 that runs in training only. For outputs finer than an eighth of the image, such as grasp maps,
`detail` joins the head with the backbone's first maps.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from teacher.backbone import build_backbone, feature_channels
from teacher.pooling import exact_adaptive_avg_pool

BINS = (1, 2, 3, 6)
AUX_CHANNELS = 256
DETAIL_CHANNELS = 64


class Output(NamedTuple):
    """Output of a network."""

    logits: Tensor
    """Floating N×K×h×w at the network's output stride."""
    aux: Tensor | None
    """Logits of the auxiliary head, floating N×K×h×w; None in evaluation mode or without such a head."""
    features: Mapping[str, Tensor] = {}
    """Feature maps N×C×h×w by name, for losses that compare them."""


def conv_bn_relu(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    """A bias-free convolution that keeps height and width, batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class PyramidPooling(nn.Module):
    """N×C×h×w → N×2C×h×w: the input and its averages in 1, 4, 9 and 36 cells, each reduced to C/4 channels.

    Args:
        channels: C.
        bins: cells along each axis of each average.
        align_corners: whether the averages are upsampled so that the centers of corner cells are those of the map's
            corners (see `torch.nn.functional.interpolate`).
    """

    def __init__(self, channels: int, bins: Sequence[int] = BINS, *, align_corners: bool = False) -> None:
        super().__init__()
        self.bins, self.align_corners = tuple(bins), align_corners
        self.out_channels = channels + len(self.bins) * (channels // len(self.bins))
        self.branches = nn.ModuleList(
            conv_bn_relu(channels, channels // len(self.bins), 1) for _ in self.bins
        )

    def pooled(self, x: Tensor) -> list[Tensor]:
        """The reduced averages, one map N×(C/4)×b×b for each b of `bins`."""
        return [
            branch(exact_adaptive_avg_pool(x, b)) for b, branch in zip(self.bins, self.branches, strict=True)
        ]

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        corners = self.align_corners
        maps = [F.interpolate(p, size, mode="bilinear", align_corners=corners) for p in self.pooled(x)]
        return torch.cat([x, *maps], dim=1)


class Detail(nn.Module):
    """Upsampling of the head N×C×h×w step by step, joined with finer maps, as in U-Net.

    Each step concatenates the upsampled head with the next finer map and applies one 3×3 convolution. The result has
    `DETAIL_CHANNELS` channels at the size of the finest map.

    Args:
        head_channels: C.
        channels: channels of the finer maps, finest first.
    """

    def __init__(self, head_channels: int, channels: Sequence[int]) -> None:
        super().__init__()
        below = [head_channels, *[DETAIL_CHANNELS] * (len(channels) - 1)]
        self.blocks = nn.ModuleList(
            conv_bn_relu(deep + fine, DETAIL_CHANNELS, 3)
            for deep, fine in zip(below, reversed(channels), strict=True)
        )

    def forward(self, head: Tensor, maps: Sequence[Tensor]) -> Tensor:
        for block, fine in zip(self.blocks, reversed(maps), strict=True):
            raised = F.interpolate(head, fine.shape[-2:], mode="bilinear", align_corners=False)
            head = block(torch.cat([fine, raised], dim=1))
        return head


class PSPNet(nn.Module):
    """PSPNet, the teacher's network and the architecture of several students.

    Args:
        backbone: timm name; or a module that returns the maps `[layer3, layer4]`, with their channels in
            `feature_info`, to which the options of a backbone do not apply.
        in_channels: channels C of the normalized image.
        num_outputs: output maps K, the number of classes in segmentation.
        output_stride: 8, 16 or 32.
        head_channels: width of the 3×3 head convolution.
        dropout: dropout rate before the classifier.
        aux: build the auxiliary head on layer3.
        detail: output maps at half the size of the image, from the head and the backbone's first two maps (`Detail`).
        pretrained: load ImageNet weights into the backbone.
        align_corners: of the pyramid's upsampling, True in semseg's networks. The enlargement of the logits to the
            size of the image is not part of the network; it has half-pixel centers (`align_corners=False`) in all of
            this project.
        contract_dilation: as for `build_backbone`; False in semseg's networks.

    Raises:
        UserError: timm has no such backbone or cannot dilate it, or the weights cannot be fetched.
    """

    def __init__(
        self,
        backbone: str | nn.Module,
        in_channels: int,
        num_outputs: int,
        *,
        output_stride: int = 8,
        head_channels: int = 512,
        dropout: float = 0.1,
        aux: bool = True,
        detail: bool = False,
        pretrained: bool = False,
        align_corners: bool = False,
        contract_dilation: bool = True,
    ) -> None:
        super().__init__()
        maps = (0, 1, -2, -1) if detail else (-2, -1)
        if isinstance(backbone, str):
            backbone = build_backbone(
                backbone,
                in_channels,
                output_stride,
                pretrained=pretrained,
                maps=maps,
                contract_dilation=contract_dilation,
            )
        self.backbone = backbone
        *fine, layer3, layer4 = feature_channels(self.backbone)
        self.pyramid = PyramidPooling(layer4, align_corners=align_corners)
        self.head = conv_bn_relu(self.pyramid.out_channels, head_channels, 3)
        self.detail = Detail(head_channels, fine) if detail else None
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(DETAIL_CHANNELS if detail else head_channels, num_outputs, 1)
        self.aux_head = aux_head(layer3, num_outputs, dropout) if aux else None

    def forward(self, x: Tensor) -> Output:
        """Run the network.

        Args:
            x: normalized images, floating N×C×H×W.

        Returns:
            Logits N×K×h×w at the output stride, or at stride 2 with `detail`; auxiliary logits at the stride of layer3;
            and the features `layer3`, `layer4` (the backbone's last two) and `head` (the classifier's input).
        """
        *fine, layer3, layer4 = self.backbone(x)
        head = self.head(self.pyramid(layer4))
        if self.detail is not None:
            head = self.detail(head, fine)
        logits = self.classifier(self.dropout(head))
        aux = self.aux_head(layer3) if self.training and self.aux_head is not None else None
        return Output(logits, aux, {"layer3": layer3, "layer4": layer4, "head": head})


def aux_head(channels: int, num_outputs: int, dropout: float) -> nn.Sequential:
    """An auxiliary head: N×C×h×w → logits N×K×h×w. Networks hold it as `aux_head` and run it in training only."""
    return nn.Sequential(
        *conv_bn_relu(channels, AUX_CHANNELS, 3),
        nn.Dropout2d(dropout),
        nn.Conv2d(AUX_CHANNELS, num_outputs, 1),
    )
