"""Segmentation networks of torchvision: DeepLabV3, FCN and LR-ASPP."""

from typing import Any

from torch import Tensor, nn

from deploy.errors import UserError
from teacher.external.origin import Origin, adapt_first_convolution, load_where_it_fits, require
from teacher.hub import downloaded_file, why_unreachable
from teacher.pspnet import Output

CHANNELS = 3
HEADS = ("classifier.4.", "classifier.low_classifier.", "classifier.high_classifier.", "aux_head.")
"""The layers that depend on the classes, and the auxiliary head, which not all published networks have."""


class TorchvisionNetwork(nn.Module):
    """A segmentation network of torchvision, without its enlargement of the logits to the size of the image.

    Args:
        name: torchvision's name, such as `deeplabv3_resnet50`.
        in_channels: channels C of the normalized image; the first convolution is adapted, trained weights included.
        num_outputs: output maps K.
        aux: build the auxiliary head on layer3 (LR-ASPP has none).
        pretrained: load torchvision's weights of the whole network (COCO's images with VOC's classes). Layers for other
            classes stay new; `new_tensors` names them.

    Raises:
        UserError: torchvision has no such network, or its weights cannot be fetched.
    """

    def __init__(
        self, name: str, in_channels: int, num_outputs: int, *, aux: bool = True, pretrained: bool = False
    ) -> None:
        super().__init__()
        network = _build(name, num_outputs)
        self.backbone, self.classifier = network.backbone, network.classifier
        self.in_channels = in_channels
        self.new_tensors: tuple[str, ...] = ()
        self._whole = name.startswith("lraspp")  # its head takes both maps
        self.aux_head = network.aux_classifier if aux and not self._whole else None
        if pretrained:
            source, state = _weights(name)
            state = {k.replace("aux_classifier.", "aux_head.", 1): v for k, v in state.items()}
            self.new_tensors = tuple(load_where_it_fits(self, state, HEADS, source))
        if in_channels != CHANNELS:
            adapt_first_convolution(self.backbone, in_channels)

    def forward(self, x: Tensor) -> Output:
        """Run the network.

        Args:
            x: normalized images, floating N×C×H×W.

        Returns:
            Logits N×K×h×w at the stride of the network (8, or 16 of DeepLabV3-MobileNetV3), auxiliary logits, and the
            features `layer3` (of LR-ASPP the low map) and `layer4`.
        """
        maps = self.backbone(x)
        low, high = (maps["low"], maps["high"]) if self._whole else (maps["aux"], maps["out"])
        logits = self.classifier(maps if self._whole else high)
        aux = self.aux_head(low) if self.training and self.aux_head is not None else None
        return Output(logits, aux, {"layer3": low, "layer4": high})


def torchvision_origin(name: str) -> Origin:
    """What torchvision's weights of a network say of themselves.

    Raises:
        UserError: torchvision has no such network.
    """
    _check_name(name)
    weights = _models().get_model_weights(name).DEFAULT
    preprocessing = weights.transforms()
    mean, std = (tuple(255 * v for v in values) for values in (preprocessing.mean, preprocessing.std))
    return Origin(f"torchvision's {weights}", tuple(weights.meta["categories"]), mean, std)


def torchvision_place(name: str) -> str | None:
    """Where torchvision's weights of a network lie on this machine; None if they would be downloaded.

    Raises:
        UserError: torchvision has no such network.
    """
    _check_name(name)
    path = downloaded_file(_models().get_model_weights(name).DEFAULT.url)
    return None if path is None else str(path)


def _build(name: str, num_outputs: int) -> Any:
    _check_name(name)
    options = {} if name.startswith("lraspp") else {"aux_loss": True}
    return _models().get_model(name, weights=None, weights_backbone=None, num_classes=num_outputs, **options)


def _check_name(name: str) -> None:
    models = _models()
    known = models.list_models(module=models.segmentation)
    if name not in known:
        raise UserError(
            f"torchvision has no segmentation network {name!r}; it has {', '.join(known)}. A backbone of timm, with a"
            " pyramid, is pspnet/<timm name>"
        )


def _weights(name: str) -> tuple[str, dict[str, Tensor]]:
    """The source and the tensors of torchvision's weights."""
    weights = _models().get_model_weights(name).DEFAULT
    if downloaded_file(weights.url) is None and (reason := why_unreachable(weights.url)):
        raise UserError(
            f"the weights of torchvision's {name} cannot be had from {weights.url}: {reason}; copy the file to"
            " ~/.cache/torch/hub/checkpoints, or convert it (edgedistill convert) and give --*.weights"
        )
    try:
        return weights.url, weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except Exception as error:  # of its fetchers, and a checksum that differs
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"the weights of torchvision's {name} cannot be read: {reason}") from error


def _models() -> Any:
    return require("torchvision", "train", "torchvision/<name>").models
