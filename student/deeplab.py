"""DeepLabV3+ on a light backbone (Chen et al., ECCV 2018, arXiv:1802.02611)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from student.encoders import separable
from student.sizes import size_of
from teacher.backbone import build_backbone, feature_channels
from teacher.pspnet import Output, aux_head, conv_bn_relu

RATES = 6, 12, 18
"""Dilation rates of the pyramid at output stride 16; doubled at stride 8, halved at stride 32."""
LOW_CHANNELS = 48
"""Channels to which the low-level map is reduced, so that it does not outweigh the deep one."""


class DeepLabV3Plus(nn.Module):
    """A dilated backbone, a pyramid of dilated separable convolutions, and a decoder that adds a low-level map.

    Args:
        backbone: timm name.
        in_channels: channels C of the normalized image.
        num_outputs: output maps K.
        output_stride: stride of the deepest map: 8, 16 or 32.
        head_channels: width of pyramid and decoder, 256 in the paper.
        dropout: dropout rate after the pyramid.
        aux: build the auxiliary head on layer3.
        pretrained: load ImageNet weights into the backbone.

    Raises:
        UserError: timm has no such backbone or cannot dilate it, or the weights cannot be fetched.
    """

    def __init__(
        self,
        backbone: str,
        in_channels: int,
        num_outputs: int,
        *,
        output_stride: int = 8,
        head_channels: int = 256,
        dropout: float = 0.1,
        aux: bool = True,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = build_backbone(
            backbone, in_channels, output_stride, pretrained=pretrained, maps=(1, -2, -1)
        )
        low, layer3, layer4 = feature_channels(self.backbone)
        self.pyramid = DilatedPyramid(layer4, head_channels, [rate * 16 // output_stride for rate in RATES])
        self.dropout = nn.Dropout2d(dropout)
        self.low = conv_bn_relu(low, LOW_CHANNELS, 1)
        self.head = nn.Sequential(
            separable(head_channels + LOW_CHANNELS, head_channels), separable(head_channels, head_channels)
        )
        self.classifier = nn.Conv2d(head_channels, num_outputs, 1)
        self.aux_head = aux_head(layer3, num_outputs, dropout) if aux else None

    def forward(self, x: Tensor) -> Output:
        """Run the network.

        Args:
            x: normalized images, floating N×C×H×W.

        Returns:
            Logits N×K×⌈H/4⌉×⌈W/4⌉, auxiliary logits at the stride of layer3, and the features `low` at stride 4,
            `layer3` and `layer4` (the backbone's last two) and `head` (the classifier's input, at stride 4).
        """
        low, layer3, layer4 = self.backbone(x)
        deep = enlarged(self.dropout(self.pyramid(layer4)), size_of(low))
        head = self.head(torch.cat([deep, self.low(low)], dim=1))
        aux = self.aux_head(layer3) if self.training and self.aux_head is not None else None
        features = {"low": low, "layer3": layer3, "layer4": layer4, "head": head}
        return Output(self.classifier(head), aux, features)


class DilatedPyramid(nn.Module):
    """Atrous spatial pyramid pooling: N×C×h×w → N×width×h×w.

    A 1×1 convolution, a separable 3×3 convolution per dilation rate and the mean over the map run in parallel; a 1×1
    convolution reduces their concatenation to `width` channels.
    """

    def __init__(self, channels: int, width: int, rates: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [conv_bn_relu(channels, width, 1), *(separable(channels, width, rate) for rate in rates)]
        )
        self.mean = conv_bn_relu(channels, width, 1)
        self.project = conv_bn_relu((len(rates) + 2) * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = enlarged(self.mean(x.mean((2, 3), keepdim=True)), size_of(x))
        return self.project(torch.cat([*(branch(x) for branch in self.branches), mean], dim=1))


def enlarged(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize N×C×h×w bilinearly to `size` (height, width)."""
    return F.interpolate(x, size, mode="bilinear", align_corners=False)
