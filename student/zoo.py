"""Networks by name."""

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from inspect import Parameter, signature
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from deploy.errors import UserError
from student.deeplab import DeepLabV3Plus
from student.ggcnn import GGCNN, GGCNN2
from student.grconvnet import GRConvNet
from student.unet import UNet
from teacher.pspnet import PSPNet

Network = Callable[..., nn.Module]
"""Takes the channels of the image, the number of outputs and options; returns `teacher.pspnet.Output`."""


def _unet_fusion(
    in_channels: int, num_outputs: int, *, modalities: tuple[int, int] | None = None, **options: Any
) -> UNet:
    """U-Net for two modalities: an optical image in the first three channels where there are more, else two halves.

    Raises:
        UserError: one channel.
    """
    if in_channels < 2:
        raise UserError(
            f"unet-fusion: joins two modalities, and the image has {in_channels} channel; use unet"
        )
    first = 3 if in_channels > 3 else (in_channels + 1) // 2
    modalities = modalities or (first, in_channels - first)
    return UNet(in_channels, num_outputs, modalities=modalities, **options)


STUDENTS: dict[str, Network] = {
    **{f"pspnet/{name}": partial(PSPNet, name) for name in ("resnet50", "resnet18", "mobilenetv3_large_100")},
    "deeplabv3plus/mobilenetv2_100": partial(DeepLabV3Plus, "mobilenetv2_100"),
    "unet": UNet,
    "unet-wide": partial(UNet, width=48, extra=1),
    "unet-weighted": partial(UNet, weighted=True),
    "unet-fusion": _unet_fusion,
    "ggcnn": GGCNN,
    "ggcnn2": GGCNN2,
    "grconvnet": GRConvNet,
}
"""The listed students. Any other backbone that timm has and can dilate builds as well, as `pspnet/<timm name>`, the
teacher's `pspnet/resnet101` among them, or `deeplabv3plus/<timm name>`."""

FAMILIES: dict[str, Network] = {"pspnet": PSPNet, "deeplabv3plus": DeepLabV3Plus}
"""Networks on any backbone: they take its name before everything else."""

COMMON = {
    name: parameter.default
    for name, parameter in signature(PSPNet).parameters.items()
    if parameter.default is not Parameter.empty
}
"""Options that a configuration has for every network, with their defaults."""


def build_network(arch: str, in_channels: int, num_outputs: int, **options: object) -> nn.Module:
    """The network called `arch`, with those `options` that its family has (see its class).

    A configuration sets `COMMON` options for every network. Where a family lacks one, its default is passed over, and
    so is `aux`, which belongs to the training: a network without an auxiliary head gives no auxiliary logits.

    Raises:
        UserError: no such network, or an option that it lacks and that is not at its default.
    """
    network = _network(arch)
    known = _options(network)
    lacks = [name for name in options if name not in known and name != "aux"]
    wrong = [name for name in lacks if name not in COMMON or options[name] != COMMON[name]]
    if wrong:
        defaults = ", ".join(f"{name} {COMMON[name]}" for name in wrong if name in COMMON)
        remedy = (
            f"give the default, {defaults}" if defaults else f"it has {', '.join(sorted(known)) or 'none'}"
        )
        raise UserError(f"{arch} has no option {', '.join(wrong)}; {remedy}")
    return network(in_channels, num_outputs, **{k: v for k, v in options.items() if k in known})


def _network(arch: str) -> Network:
    if arch in STUDENTS:
        return STUDENTS[arch]
    family, _, backbone = arch.partition("/")
    if family in FAMILIES and backbone:
        return partial(FAMILIES[family], backbone)
    others = " or ".join(f"{family}/<timm name>" for family in FAMILIES)
    raise UserError(f"unknown network {arch!r}; known: {', '.join(STUDENTS)}, or {others}")


def _options(network: Network) -> set[str]:
    """The keyword-only parameters of a network's constructor."""
    function = UNet if network is _unet_fusion else network
    parameters = signature(function).parameters.values()
    return {one.name for one in parameters if one.kind is Parameter.KEYWORD_ONLY}


def channels_of(network: nn.Module) -> int:
    """How many channels a network's image has: its `in_channels`, or what its first convolution reads."""
    first = next(p for p in network.parameters() if p.ndim == 4)
    return int(getattr(network, "in_channels", first.shape[1]))


def count_parameters(network: nn.Module) -> int:
    """Parameters that inference needs: the auxiliary head does not count."""
    return sum(p.numel() for name, p in network.named_parameters() if not name.startswith("aux_head."))


def count_macs(network: nn.Module, in_channels: int, size: tuple[int, int]) -> int:
    """Multiply-accumulates of one inference on an image of `size` (height, width); counted without computing."""
    with torch.device("meta"):
        image = torch.empty(1, in_channels, *size)
    shadow = _on_meta(network)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        shadow(image)
    return counter.get_total_flops() // 2


def _on_meta(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network).to("meta").eval()


def student_lines(
    more: Sequence[str], in_channels: int, num_outputs: int, size: tuple[int, int]
) -> Iterator[str]:
    """One line a network: name, parameters in millions and multiply-accumulates in billions at `size`.

    A listed one that cannot be built for so many channels says why; of those in `more` that raises `UserError`.
    """
    yield f"{'student':<32}{'params M':>10}{f'GMAC at {size[0]}×{size[1]}':>20}"
    for arch in (*STUDENTS, *more):
        try:
            network = build_network(arch, in_channels, num_outputs)
        except UserError as error:
            if arch in more:
                raise
            yield f"{arch:<32}{str(error).removeprefix(f'{arch}: ')}"
            continue
        parameters, macs = count_parameters(network), count_macs(network, in_channels, size)
        yield f"{arch:<32}{parameters / 1e6:>10.2f}{macs / 1e9:>20.2f}"
