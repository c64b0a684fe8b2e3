"""Backbones of the package transformers, such as DINOv2 and DINOv3, as feature backbones of this project."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from deploy.errors import UserError
from teacher.external.hf_files import first_line, quiet_transformers
from teacher.external.hf_weights import load_pretrained
from teacher.external.origin import adapt_first_convolution
from teacher.fitting import fitted

PROBE = 2
"""Side of the image, in patches or in deepest strides, with which the strides of the maps are found."""
GUESS = 32
"""Deepest stride of pyramids."""


@dataclass(frozen=True)
class MapInfo:
    """Channels and strides of feature maps, as timm's `feature_info` gives them."""

    widths: tuple[int, ...]
    strides: tuple[int, ...]

    def channels(self) -> list[int]:
        """Of each map."""
        return list(self.widths)

    def reduction(self) -> list[int]:
        """Stride of each map."""
        return list(self.strides)


class HfBackbone(nn.Module):
    """N×C×H×W → the maps `[layer3, layer4]` at the network's strides, of the image resized to multiples of the deepest.

    Args:
        network: a backbone of transformers that returns two `feature_maps`.
        in_channels: C.
        multiple: sides of the image must be multiples of it.
    """

    def __init__(self, network: nn.Module, in_channels: int, multiple: int) -> None:
        super().__init__()
        self.network, self.in_channels, self.multiple = network, in_channels, multiple
        side = PROBE * multiple
        image = torch.zeros(1, in_channels, side, side, device=next(network.parameters()).device)
        with torch.no_grad():
            maps = network.eval()(pixel_values=image).feature_maps
        self.feature_info = MapInfo(
            tuple(one.shape[1] for one in maps), tuple(side // one.shape[-1] for one in maps)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        return list(self.network(pixel_values=fitted(x, self.multiple)).feature_maps)


def hf_backbone(name: str, config: Any, in_channels: int, pretrained: bool) -> HfBackbone:
    """Build a backbone of transformers.

    Its maps are those of its last two stages; of a plain transformer, whose stages are its blocks, those at three
    quarters of its depth and at its end.

    Args:
        name: of the network, for messages and weights.
        config: its configuration, of a type that has a backbone.
        in_channels: channels of the image.
        pretrained: load its weights.

    Raises:
        UserError: it cannot be built, or its weights do not fit.
    """
    mapping = quiet_transformers(f"hf/{name}").models.auto.modeling_auto.MODEL_FOR_BACKBONE_MAPPING
    family, stages = mapping[type(config)], len(config.stage_names) - 1
    plain = stages == getattr(config, "num_hidden_layers", None)
    config.out_indices = [max(1, stages * 3 // 4) if plain else stages - 1, stages]
    try:
        network = load_pretrained(family, name, config)[0] if pretrained else family(config)
        adapt_first_convolution(network, in_channels)
        for tensor, parameter in network.named_parameters():
            if tensor.endswith("mask_token"):
                # of masked pretraining: no image reaches it, and several processes train no such parameter
                parameter.requires_grad_(False)
        return HfBackbone(network, in_channels, _multiple(config) if plain else GUESS)
    except UserError:
        raise
    except Exception as error:  # whatever a configuration leads to
        raise UserError(f"hf/{name}: cannot be built from its configuration ({first_line(error)})") from error


def _multiple(config: Any) -> int:
    patch = config.patch_size
    return int(patch if isinstance(patch, int) else max(patch))
