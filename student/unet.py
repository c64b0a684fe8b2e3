"""U-Net (Ronneberger et al., MICCAI 2015, arXiv:1505.04597) and three variants.

As is usual today, convolutions keep height and width and have batch norms. The wide variant adds a depthwise-separable
convolution to every block; the channel-weighted one weighs the channels of its input by their content; the fusion one
has one encoder for each of two modalities.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deploy.errors import UserError
from student.encoders import ChannelWeights, Encoder, FusionEncoder, block
from student.sizes import cropped, padded, size_of
from teacher.pspnet import Output, aux_head


class UNet(nn.Module):
    """U-Net.

    Args:
        in_channels: channels C of the normalized image.
        num_outputs: output maps K.
        width: channels at full resolution, doubled at every level below; 64 in the paper.
        depth: how often height and width are halved; 4 in the paper.
        up: `bilinear` upsampling, which is lighter, or the paper's `transposed` 2×2 convolutions. With `bilinear`, the
            deepest level has as many channels as the level above.
        extra: depthwise-separable 3×3 convolutions after the two convolutions of every block.
        weighted: weigh the input's channels (`ChannelWeights`).
        modalities: channels of each of two modalities, which follow each other in the image (`FusionEncoder`).
        dropout: dropout rate before the classifier.
        aux: build the auxiliary head on layer4.

    Raises:
        UserError: the modalities do not add up to the channels, `up` is unknown, or `width` or `depth` is below 1.
    """

    def __init__(
        self,
        in_channels: int,
        num_outputs: int,
        *,
        width: int = 32,
        depth: int = 4,
        up: Literal["bilinear", "transposed"] = "bilinear",
        extra: int = 0,
        weighted: bool = False,
        modalities: tuple[int, int] | None = None,
        dropout: float = 0.1,
        aux: bool = True,
    ) -> None:
        super().__init__()
        if up not in ("bilinear", "transposed"):
            raise UserError(f"unet: up is {up!r}; choose bilinear or transposed")
        if min(width, depth) < 1:
            raise UserError(f"unet: width {width} and depth {depth} must be 1 or more")
        self.in_channels = in_channels  # the fusion encoder's first convolution reads only some of them
        self.multiple = 2**depth
        widths = [width * 2**level for level in range(depth + 1)]
        if up == "bilinear":
            widths[-1] //= 2
        self.weights = ChannelWeights(in_channels) if weighted else nn.Identity()
        if modalities is None:
            self.encoder = Encoder(in_channels, widths, extra)
        else:
            self.encoder = FusionEncoder(in_channels, modalities, widths, extra)
        self.decoder = Decoder(widths, up, extra)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(self.decoder.out_channels, num_outputs, 1)
        self.aux_head = aux_head(widths[-1], num_outputs, dropout) if aux else None

    def forward(self, x: Tensor) -> Output:
        """Run the network.

        Args:
            x: normalized images of any size, floating N×C×H×W; padded inside to multiples of 2^depth.

        Returns:
            Logits N×K×H×W, auxiliary logits at the stride of layer4, and the features of the padded image: `layer3` and
            `layer4` (the two deepest maps of the encoder) and `head` (the classifier's input, `width` channels).
        """
        maps = self.encoder(padded(self.weights(x), self.multiple))
        head = self.decoder(maps)
        aux = self.aux_head(maps[-1]) if self.training and self.aux_head is not None else None
        features = {"layer3": maps[-2], "layer4": maps[-1], "head": head}
        # cropped last: a slice between two convolutions would keep the first in float
        return Output(cropped(self.classifier(self.dropout(head)), size_of(x)), aux, features)


class Decoder(nn.Module):
    """The maps of an encoder, each half the size of the previous one → N×C×H×W at the size of the first."""

    def __init__(self, widths: Sequence[int], up: Literal["bilinear", "transposed"], extra: int) -> None:
        super().__init__()
        rising = list(reversed(widths))
        # Bilinear upsampling keeps the channels, so each block already outputs as many as the next skip has.
        ends = rising[1:] if up == "transposed" else [*(max(w // 2, 1) for w in rising[1:-1]), rising[-1]]
        starts = [rising[0], *ends[:-1]]
        self.out_channels = ends[-1]
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(below, beside, 2, stride=2) if up == "transposed" else Double()
            for below, beside in zip(starts, rising[1:], strict=True)
        )
        raised = rising[1:] if up == "transposed" else starts
        self.blocks = nn.ModuleList(
            block(above + beside, end, extra, middle=(above + beside) // 2)
            for above, beside, end in zip(raised, rising[1:], ends, strict=True)
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        *skips, x = maps
        for up, blk, skip in zip(self.ups, self.blocks, reversed(skips), strict=True):
            x = blk(torch.cat([skip, up(x)], dim=1))
        return x


class Double(nn.Module):
    """Bilinear upsampling: N×C×h×w → N×C×2h×2w."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        return F.interpolate(x, (2 * height, 2 * width), mode="bilinear", align_corners=False)
