"""Backbones of timm that keep their own stride: vision transformers, and hybrids of convolutions and attention."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import timm
import torch
from torch import Tensor, nn

from deploy.errors import UserError
from teacher.fitting import fitted

ANY_SIZE: tuple[Mapping[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})
"""Options by which networks take images of any size; the first that a network knows is used."""
QUARTERS = (1, 2, 3, 4)


class OwnStride(nn.Module):
    """A timm network: N×C×H×W → maps N×C_i×h_i×w_i at the network's strides.

    Images whose sides are no multiples of the deepest stride are resized (bilinearly) to the nearest ones, so that the
    maps cover the image exactly.

    Args:
        network: returns feature maps.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.feature_info: Any = network.feature_info
        self.multiple = int(max(self.feature_info.reduction()))
        self._channels_last = "NHWC" in str(getattr(network, "output_fmt", ""))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = self.network(fitted(x, self.multiple))
        return [m.permute(0, 3, 1, 2) for m in maps] if self._channels_last else list(maps)


@cache
def keeps_its_stride(name: str) -> bool:
    """Whether a timm network gives feature maps, but cannot be dilated to another stride."""
    if not timm.is_model(name):  # timm would look for other names on a hub
        return False
    try:
        _on_meta(name, output_stride=16)
    except (TypeError, AssertionError):
        return _any_size(name) is not None
    except (RuntimeError, AttributeError):
        return False
    return False


@cache
def is_columnar(name: str) -> bool:
    """Whether all maps of such a network have one stride, as those of a plain vision transformer do."""
    if not keeps_its_stride(name):
        return False
    strides = _on_meta(name, out_indices=(-2, -1), **(_any_size(name) or {})).feature_info.reduction()  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    return len(set(strides)) == 1


def build_own_stride(name: str, in_channels: int, maps: Sequence[int]) -> OwnStride:
    """Build such a network.

    Args:
        name: of a network that `keeps_its_stride`.
        in_channels: channels of the image.
        maps: indices of the maps, as timm counts them. Of a columnar network, -1 is the last block, and -2, -3 and -4
            are those at three, two and one quarters of its depth.

    Raises:
        UserError: the network has no such maps, or takes images of one size only.
    """
    if is_columnar(name):
        if any(index >= 0 for index in maps):
            raise UserError(
                f"backbone {name!r} has maps of one stride, and so no finer ones; leave out --*.detail"
            )
        with torch.device("meta"):
            blocks = len(timm.create_model(name).feature_info)  # pyright: ignore[reportArgumentType]
        ends = [max(1, blocks * quarter // len(QUARTERS)) - 1 for quarter in QUARTERS]
        maps = [ends[index] for index in maps]
    options = {"out_indices": tuple(maps), "in_chans": in_channels, **(_any_size(name) or {})}
    backbone = OwnStride(timm.create_model(name, features_only=True, pretrained=False, **options))
    _check_any_size(name, in_channels, options)
    return backbone


def _check_any_size(name: str, in_channels: int, options: Mapping[str, Any]) -> None:
    backbone = OwnStride(_on_meta(name, **options)).eval()
    try:
        with torch.device("meta"), torch.no_grad():
            backbone(torch.empty(1, in_channels, 2 * backbone.multiple, 3 * backbone.multiple))
    except Exception as error:  # a check of its own, or a tensor that does not fit
        raise UserError(
            f"backbone {name!r} takes images of one size only ({(str(error).splitlines() or [''])[0][:80]}); choose one"
            " that takes any, such as vit_small_patch16_224, swin_tiny_patch4_window7_224 or mobilevit_xs"
        ) from error


@cache
def _any_size(name: str) -> Mapping[str, Any] | None:
    """Those of `ANY_SIZE` that a network knows; None if it gives no feature maps."""
    for options in ANY_SIZE:
        try:
            _on_meta(name, **options)
        except (TypeError, AssertionError, RuntimeError, AttributeError, ValueError):
            continue
        return options
    return None


def _on_meta(name: str, **options: Any) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(name, features_only=True, pretrained=False, **options)
