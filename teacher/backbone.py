"""Dilated feature backbones from timm."""

from collections.abc import Sequence

import timm
from timm.models.resnet import BasicBlock, Bottleneck
from torch import nn

from deploy.errors import UserError
from teacher.imagenet import imagenet_state
from teacher.own_stride import build_own_stride, keeps_its_stride
from teacher.weights import backbone_name, load_backbone_state

DEFAULT_STRIDE = 8
"""Output stride of networks that can be dilated, where nothing else is asked for."""


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
        name: any timm model that gives feature maps: one that can be dilated (`resnet101`, `mobilenetv3_large_100`, …),
            or one that keeps its own stride (`vit_small_patch16_224`, `swin_tiny_patch4_window7_224`, …).
        in_channels: channels of the image; the first convolution is adapted, ImageNet weights included.
        output_stride: 8, 16 or 32; reached by dilation, so layer4 keeps its receptive field. Of a network that keeps
            its own stride, that one; `DEFAULT_STRIDE` stands for it, too.
        pretrained: start from timm's ImageNet weights.
        maps: indices of the feature maps to return, as timm counts them: 0 has stride 2, 1 has stride 4, -1 is layer4.
            By default the last two, `[layer3, layer4]`; of a plain vision transformer the blocks at three quarters
            of its depth and at its end (see `teacher.own_stride`).
        contract_dilation: the first block of a dilated stage keeps the dilation of the stage before, as timm and
            MMSegmentation build it. False dilates it like the others, as semseg does; for ResNets only.

    Returns:
        A module from N×C×H×W to the list of these maps.

    Raises:
        UserError: the name is unknown, the network cannot be dilated (so), or the weights cannot be fetched.
    """
    if not timm.is_model(name):
        similar = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:5]) or "see timm.list_models()"
        raise UserError(f"timm has no model {name!r}; similar: {similar}")
    if keeps_its_stride(name):
        backbone = _own_stride(name, in_channels, output_stride, maps)
    else:
        backbone = _dilated(name, in_channels, output_stride, maps)
    if not contract_dilation:
        _dilate_first_blocks(backbone, name, output_stride)
    if pretrained:
        _load_pretrained(backbone, name, in_channels)
    return backbone


def _own_stride(name: str, in_channels: int, output_stride: int, maps: Sequence[int]) -> nn.Module:
    backbone = build_own_stride(name, in_channels, maps)
    if output_stride not in (DEFAULT_STRIDE, backbone.multiple):
        raise UserError(
            f"backbone {name!r} keeps its output stride of {backbone.multiple}; leave out --*.output-stride, or give"
            f" its default, {DEFAULT_STRIDE}"
        )
    return backbone


def _dilated(name: str, in_channels: int, output_stride: int, maps: Sequence[int]) -> nn.Module:
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
    wanted = backbone.state_dict().keys()
    # timm has checked that the network's own layers are all there; those after the features are not wanted here
    state = {k: v for k, v in imagenet_state(name).items() if backbone_name(k, wanted) is not None}
    load_backbone_state(backbone, state, in_channels, source=f"ImageNet weights of {name}")
