"""GG-CNN: generative grasping networks of some 60 000 parameters (Morrison et al., RSS 2018, arXiv:1804.05172).

Four maps from a depth image in the paper (quality, cosine and sine of twice the angle, width): any number of outputs
from any number of channels here. The paper's four heads of one output each are one convolution with as many outputs,
which is the same function.
"""

from torch import Tensor, nn

from student.sizes import cropped, padded, size_of
from teacher.pspnet import Output

FIRST = 32, 16, 8
"""Channels of the three convolutions of GG-CNN, mirrored by its transposed convolutions."""
SECOND = 16, 32
"""Channels of GG-CNN2: of its four convolutions, and of the two dilated ones."""


class GGCNN(nn.Module):
    """GG-CNN: convolutions of 9×9, 5×5 and 3×3 with strides 3, 2 and 2, and transposed ones back. No batch norms.

    `forward(N×C×H×W)`, of any size, returns `Output`: logits N×K×H×W, no auxiliary ones, and the features `layer3` and
    `layer4`, the deepest two maps with 16 and 8 channels, and `head`, what the heads read, with 32. Inside, the image
    is padded to multiples of 12, and the features are those of the padded one.
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
        layer3 = self.layer3(padded(x, 12))
        layer4 = self.layer4(layer3)
        head = self.decoder(layer4)  # one row and one column more than the image, for the 2×2 heads
        logits = cropped(self.classifier(head), size_of(x))
        return Output(logits, None, {"layer3": layer3, "layer4": layer4, "head": head})


class GGCNN2(nn.Module):
    """GG-CNN2, the authors' second (github.com/dougsm/ggcnn): pooling, dilated convolutions and bilinear upsampling.

    `forward(N×C×H×W)`, of any size, returns `Output`: logits N×K×H×W, no auxiliary ones, and the features `layer3` and
    `layer4`, the two dilated maps with 32 channels at stride 4, and `head`, what the heads read, with 16. Inside, the
    image is padded to multiples of 4, and the features are those of the padded one.
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
        layer3 = self.layer3(self.encoder(padded(x, 4)))
        layer4 = self.layer4(layer3)
        head = self.decoder(layer4)
        logits = cropped(self.classifier(head), size_of(x))
        return Output(logits, None, {"layer3": layer3, "layer4": layer4, "head": head})


def xavier(network: nn.Module) -> None:
    """The first weights of the grasping networks: Glorot and Bengio's uniform ones (AISTATS 2010)."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.xavier_uniform_(module.weight)


def _relu(convolution: nn.Module) -> nn.Sequential:
    return nn.Sequential(convolution, nn.ReLU(inplace=True))
