"""GR-ConvNet: a generative residual network for grasping (Kumra et al., IROS 2020, arXiv:1909.04810)."""

from torch import Tensor, nn

from student.ggcnn import xavier
from student.sizes import cropped, padded, size_of
from teacher.pspnet import Output, aux_head


class GRConvNet(nn.Module):
    """Three convolutions, five residual blocks, and transposed convolutions back to the size of the image.

    Args:
        in_channels: channels C of the normalized image; 1 (depth), 3 (color) or 4 (both) in the paper.
        num_outputs: output maps K; one convolution computes them, where the paper has four heads.
        width: channels at full resolution; the residual blocks have four times as many.
        dropout: dropout rate before the classifier.
        aux: build the auxiliary head on layer3.
    """

    def __init__(
        self, in_channels: int, num_outputs: int, *, width: int = 32, dropout: float = 0.1, aux: bool = True
    ) -> None:
        super().__init__()
        deep = 4 * width
        self.stem = nn.Sequential(
            _norm_relu(nn.Conv2d(in_channels, width, 9, padding=4)),
            _norm_relu(nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)),
            _norm_relu(nn.Conv2d(2 * width, deep, 4, stride=2, padding=1)),
        )
        self.layer3 = nn.Sequential(*(Residual(deep) for _ in range(3)))
        self.layer4 = nn.Sequential(*(Residual(deep) for _ in range(2)))
        self.decoder = nn.Sequential(
            _norm_relu(nn.ConvTranspose2d(deep, 2 * width, 4, stride=2, padding=1, output_padding=1)),
            _norm_relu(nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=2, output_padding=1)),
            # The paper has a transposed convolution here. At stride 1 a plain one with its kernel flipped is the same,
            # and it runs in INT8 everywhere. It is half of the network's work.
            nn.Conv2d(width, width, 9, padding=4),
        )
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Conv2d(width, num_outputs, 2)
        self.aux_head = aux_head(deep, num_outputs, dropout) if aux else None
        xavier(self)

    def forward(self, x: Tensor) -> Output:
        """Run the network.

        Args:
            x: normalized images of any size, floating N×C×H×W; padded inside to multiples of 4.

        Returns:
            Logits N×K×H×W, auxiliary logits at stride 4, and the features of the padded image: `layer3` and `layer4`
            (outputs of the third and the last residual block, 4·width channels at stride 4) and `head` (the
            classifier's input, `width` channels).
        """
        layer3 = self.layer3(self.stem(padded(x, 4)))
        layer4 = self.layer4(layer3)
        head = self.decoder(layer4)  # one row and one column more than the image, for the 2×2 heads
        logits = cropped(self.classifier(self.dropout(head)), size_of(x))
        aux = self.aux_head(layer3) if self.training and self.aux_head is not None else None
        return Output(logits, aux, {"layer3": layer3, "layer4": layer4, "head": head})


class Residual(nn.Module):
    """N×C×h×w → N×C×h×w: the input plus two 3×3 convolutions of it, without an activation after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _norm_relu(nn.Conv2d(channels, channels, 3, padding=1))
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x)) + x


def _norm_relu(convolution: nn.Conv2d | nn.ConvTranspose2d) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU(inplace=True))
