"""Networks of segmentation_models_pytorch."""

import warnings
from typing import Any

from torch import Tensor, nn

from deploy.errors import UserError
from teacher.external.origin import require
from teacher.fitting import fitted
from teacher.hub import cached_file, why_unreachable
from teacher.imagenet import imagenet_state, where_found
from teacher.pspnet import Output
from teacher.weights import backbone_name, load_backbone_state

TIMM = "tu-"
"""How names of encoders begin that are those of timm."""
SMP_FILES = ("config.json", "model.safetensors")
"""Files of an encoder's repository, all of which are asked for."""


class SmpNetwork(nn.Module):
    """A network of segmentation_models_pytorch, without its enlargement of the logits to the size of the image.

    Args:
        name: `<Architecture>/<encoder>`, such as `FPN/resnet34` or `DeepLabV3Plus/tu-mobilenetv3_large_100`.
        in_channels: channels C of the normalized image.
        num_outputs: output maps K.
        pretrained: load ImageNet weights into the encoder.

    Raises:
        UserError: the package is not installed, has no such network, or the weights cannot be fetched.
    """

    def __init__(self, name: str, in_channels: int, num_outputs: int, *, pretrained: bool = False) -> None:
        super().__init__()
        network = _build(name, in_channels, num_outputs, pretrained)
        self.in_channels = in_channels
        self.backbone, self.decoder = network.encoder, network.decoder
        self.classifier = network.segmentation_head[0]
        self.multiple = int(network.encoder.output_stride)

    def forward(self, x: Tensor) -> Output:
        """Run the network.

        Args:
            x: normalized images, floating N×C×H×W; resized inside to the nearest multiples of the network's stride.

        Returns:
            Logits N×K×h×w at the decoder's stride, no auxiliary logits, and the features `layer3` and `layer4` (the
            encoder's last two) and `head` (the classifier's input).
        """
        maps = self.backbone(fitted(x, self.multiple))
        head = self.decoder(maps)
        return Output(self.classifier(head), None, {"layer3": maps[-2], "layer4": maps[-1], "head": head})


def _build(name: str, in_channels: int, num_outputs: int, pretrained: bool) -> Any:
    smp = require("segmentation_models_pytorch", "smp", f"smp/{name}")
    architecture, _, encoder = name.partition("/")
    known = [each.__name__ for each in smp.MODEL_ARCHITECTURES_MAPPING.values()]
    if architecture not in known or not encoder:
        raise UserError(f"smp/{name}: write smp/<Architecture>/<encoder>; architectures: {', '.join(known)}")
    if pretrained:
        _require_weights(smp, encoder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it recommends other spellings
            # those of timm's are loaded below: it asks the hub for half a minute even for what lies here
            weights = "imagenet" if pretrained and not encoder.startswith(TIMM) else None
            network = smp.create_model(
                architecture, encoder, encoder_weights=weights, in_channels=in_channels, classes=num_outputs
            )
    except Exception as error:  # KeyError for a name, and whatever constructors and fetchers raise
        reason = (str(error).strip("\"'").splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"smp/{name}: cannot be built ({reason[:200]}); see smp.encoders.get_encoder_names()"
        ) from error
    if pretrained and encoder.startswith(TIMM):
        _load_timm(network.encoder.model, encoder.removeprefix(TIMM), in_channels)
    return network


def _load_timm(backbone: nn.Module, name: str, in_channels: int) -> None:
    """Load timm's ImageNet weights into an encoder, which may lack the last stages."""
    wanted = backbone.state_dict()
    state = {key: value for key, value in imagenet_state(name).items() if backbone_name(key, wanted)}
    load_backbone_state(backbone, state, in_channels, f"ImageNet weights of {name!r}")


def smp_place(name: str) -> str | None:
    """Where the ImageNet weights of an encoder lie on this machine; None if they would be downloaded.

    Args:
        name: `<Architecture>/<encoder>`.
    """
    encoder = name.partition("/")[2]
    if encoder.startswith(TIMM):
        return where_found(encoder.removeprefix(TIMM))
    smp = require("segmentation_models_pytorch", "smp", f"smp/{name}")
    settings = smp.encoders.encoders.get(encoder, {}).get("pretrained_settings", {}).get("imagenet")
    path = settings and cached_file("{repo_id}@{revision}".format(**settings), SMP_FILES[1:])
    return str(path) if path else None


def _require_weights(smp: Any, encoder: str) -> None:
    """Raise `UserError` at once where the ImageNet weights of an encoder are neither cached nor to be fetched."""
    settings = smp.encoders.encoders.get(encoder, {}).get("pretrained_settings", {})
    if encoder.startswith(TIMM):
        repository, found = encoder, where_found(encoder.removeprefix(TIMM)) is not None
    elif "imagenet" in settings:
        repository = "{repo_id}@{revision}".format(**settings["imagenet"])
        found = all(cached_file(repository, (file,)) is not None for file in SMP_FILES)
    else:
        choices = ", ".join(settings) or "none"
        raise UserError(
            f"smp: the encoder {encoder!r} has no ImageNet weights (it has {choices}); leave out --*.pretrained"
        )
    if not found and (reason := why_unreachable()):
        raise UserError(
            f"the ImageNet weights of smp's {encoder!r} cannot be had from {repository}: {reason}; connect once to fill"
            " the cache, or give a local file of the whole network with --*.weights"
        )
