"""A linear head on a backbone, by which self-supervised backbones are usually judged (DINOv2, arXiv:2304.07193)."""

from torch import Tensor, nn

from teacher.backbone import feature_channels
from teacher.pspnet import Output


class LinearNetwork(nn.Module):
    """A backbone, a batch norm and a 1×1 convolution on its last map.

    Args:
        backbone: from normalized images to maps `[layer3, layer4]`, with their channels in `feature_info`.
        num_outputs: output maps K.
        dropout: dropout rate before the classifier.
    """

    def __init__(self, backbone: nn.Module, num_outputs: int, *, dropout: float = 0.1) -> None:
        super().__init__()
        self.backbone = backbone
        channels = feature_channels(backbone)[-1]
        self.norm = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, num_outputs, 1)

    def forward(self, x: Tensor) -> Output:
        """Run the network.

        Args:
            x: normalized images, floating N×C×H×W.

        Returns:
            Logits N×K×h×w at the backbone's stride, no auxiliary logits, and the features `layer3`, `layer4` and `head`
            (the classifier's input).
        """
        layer3, layer4 = self.backbone(x)
        head = self.norm(layer4)
        return Output(
            self.classifier(self.dropout(head)), None, {"layer3": layer3, "layer4": layer4, "head": head}
        )
