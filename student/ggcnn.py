"""GG-CNN: generative grasping networks of about 60 000 parameters (Morrison et al., RSS 2018, arXiv:1804.05172).

The paper predicts four maps from a depth image: quality, cosine and sine of twice the angle, and width. Here the image
may have any number of channels and the output any number of maps. The paper's four heads with one output each are one
convolution with several outputs, which computes the same.
"""

from torch import Tensor, nn

from student.sizes import cropped, padded, size_of
from teacher.pspnet import Output

FIRST = 32, 16, 8
"""Channels of the three convolutions of GG-CNN, mirrored by its transposed convolutions."""
SECOND = 16, 32
"""Channels of GG-CNN2's four plain convolutions, and of its two dilated ones."""


class GGCNN(nn.Module):
    """GG-CNN: convolutions of 9×9, 5×5 and 3×3 with strides 3, 2 and 2, mirrored by transposed ones; no batch norms.

    Args:
        in_channels: channels C of the normalized image.
        num_outputs: output maps K.
    """

    def __init__(self, in_channels: int, num_outputs: int) -> None:
        super().__init__()
        wide, middle, narrow = FIRST
        self.layer3 = nn.Sequential(
            _relu(nn.Conv2d(in_channels, wide, 9, stride=3, padding=3)),
            _relu(nn.Conv2d(wide, middle, 5, stride=2, padding=2)),
        )
        self.layer4 = _relu(nn.Conv2d(middle, narrow, 3, stride=2, padding=1))
        self.decoder = nn.Sequential(
            _relu(nn.ConvTranspose2d(narrow, narrow, 3, stride=2, padding=1, output_padding=1)),
            _relu(nn.ConvTranspose2d(narrow, middle, 5, stride=2, padding=2, output_padding=1)),
            _relu(nn.ConvTranspose2d(middle, wide, 9, stride=3, padding=3, output_padding=1)),
        )
        self.classifier = nn.Conv2d(wide, num_outputs, 2)
        xavier(self)

    def forward(self, x: Tensor) -> Output:
        """Run the network.

        Args:
            x: normalized images of any size, floating N×C×H×W; padded inside to multiples of 12.

        Returns:
            Logits N×K×H×W, no auxiliary logits, and the features of the padded image: `layer3` and `layer4` (the two
            deepest maps, 16 and 8 channels) and `head` (the classifier's input, 32 channels).
        """
        layer3 = self.layer3(padded(x, 12))
        layer4 = self.layer4(layer3)
        head = self.decoder(layer4)  # one row and one column more than the image, for the 2×2 heads
        logits = cropped(self.classifier(head), size_of(x))
        return Output(logits, None, {"layer3": layer3, "layer4": layer4, "head": head})


class GGCNN2(nn.Module):
    """GG-CNN2, the authors' second network: pooling, dilated convolutions and bilinear upsampling; no batch norms.

    Published at github.com/dougsm/ggcnn.

    Args:
        in_channels: channels C of the normalized image.
        num_outputs: output maps K.
    """

    def __init__(self, in_channels: int, num_outputs: int) -> None:
        super().__init__()
        narrow, wide = SECOND
        self.encoder = nn.Sequential(
            _relu(nn.Conv2d(in_channels, narrow, 11, padding=5)),
            _relu(nn.Conv2d(narrow, narrow, 5, padding=2)),
            nn.MaxPool2d(2),
            _relu(nn.Conv2d(narrow, narrow, 5, padding=2)),
            _relu(nn.Conv2d(narrow, narrow, 5, padding=2)),
            nn.MaxPool2d(2),
        )
        self.layer3 = _relu(nn.Conv2d(narrow, wide, 5, padding=4, dilation=2))
        self.layer4 = _relu(nn.Conv2d(wide, wide, 5, padding=8, dilation=4))
        self.decoder = nn.Sequential(
            nn.UpsamplingBilinear2d(scale_factor=2),
            _relu(nn.Conv2d(wide, narrow, 3, padding=1)),
            nn.UpsamplingBilinear2d(scale_factor=2),
            _relu(nn.Conv2d(narrow, narrow, 3, padding=1)),
        )
        self.classifier = nn.Conv2d(narrow, num_outputs, 1)
        xavier(self)

    def forward(self, x: Tensor) -> Output:
        """Run the network.

        Args:
            x: normalized images of any size, floating N×C×H×W; padded inside to multiples of 4.

        Returns:
            Logits N×K×H×W, no auxiliary logits, and the features of the padded image: `layer3` and `layer4` (the two
            dilated maps, 32 channels at stride 4) and `head` (the classifier's input, 16 channels).
        """
        layer3 = self.layer3(self.encoder(padded(x, 4)))
        layer4 = self.layer4(layer3)
        head = self.decoder(layer4)
        logits = cropped(self.classifier(head), size_of(x))
        return Output(logits, None, {"layer3": layer3, "layer4": layer4, "head": head})


def xavier(network: nn.Module) -> None:
    """Initialize all convolutions with Glorot and Bengio's uniform distribution (AISTATS 2010)."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.xavier_uniform_(module.weight)


def _relu(convolution: nn.Module) -> nn.Sequential:
    return nn.Sequential(convolution, nn.ReLU(inplace=True))
