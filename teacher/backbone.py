"""Dilated feature backbones from timm."""

from collections.abc import Sequence

import timm
from torch import nn

from deploy.errors import UserError
from teacher.packaged import PACKAGES, packaged_state
from teacher.weights import load_backbone_state


def build_backbone(
    name: str,
    in_channels: int,
    output_stride: int,
    *,
    pretrained: bool = False,
    maps: Sequence[int] = (-2, -1),
) -> nn.Module:
    """Build a timm network that returns feature maps.

    Args:
        name: any timm model with a feature pyramid and dilation (`resnet101`, `mobilenetv3_large_100`, …).
        in_channels: channels of the image; the first convolution is adapted, ImageNet weights included.
        output_stride: 8, 16 or 32; reached by dilation, so layer4 keeps its receptive field.
        pretrained: start from timm's ImageNet weights.
        maps: indices of the feature maps to return, as timm counts them: 0 has stride 2, 1 has stride 4, -1 is layer4.
            By default the last two, `[layer3, layer4]`.

    Returns:
        A module from N×C×H×W to the list of these maps.

    Raises:
        UserError: the name is unknown, the network cannot be dilated, or the weights cannot be fetched.
    """
    if not timm.is_model(name):
        similar = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:5]) or "see timm.list_models()"
        raise UserError(f"timm has no model {name!r}; similar: {similar}")
    try:
        backbone = timm.create_model(
            name,
            features_only=True,
            out_indices=tuple(maps),
            output_stride=output_stride,
            in_chans=in_channels,
            pretrained=False,
        )
    except (TypeError, AssertionError, RuntimeError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"backbone {name!r} has no feature pyramid at output stride {output_stride} ({reason});"
            " choose a dilatable one such as resnet50"
        ) from error
    reached = backbone.feature_info.reduction()[-1]  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    if reached != output_stride:
        raise UserError(
            f"backbone {name!r} has output stride {reached}, not {output_stride}; set --*.output-stride"
        )
    if pretrained:
        _load_pretrained(backbone, name, in_channels)
    return backbone


def feature_channels(backbone: nn.Module) -> tuple[int, ...]:
    """Channels of the feature maps that a backbone returns, by default `(layer3, layer4)`."""
    return tuple(backbone.feature_info.channels())  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]


def _load_pretrained(backbone: nn.Module, name: str, in_channels: int) -> None:
    state = packaged_state(name)
    if state is not None:
        load_backbone_state(backbone, state, in_channels, source=PACKAGES[name])
        return
    offline = (
        f"pip install {PACKAGES[name].replace('_', '-')}"
        if name in PACKAGES
        else "connect once to fill timm's cache"
    )
    try:
        source = timm.create_model(name, pretrained=True)
    except Exception as error:  # timm's fetchers raise a dozen unrelated types when offline
        raise UserError(
            f"the ImageNet weights of {name!r} cannot be fetched ({type(error).__name__});"
            f" {offline}, or give a local file with --teacher.weights / --student.weights"
        ) from error
    load_backbone_state(backbone, source.state_dict(), in_channels, source=f"timm:{name}")
