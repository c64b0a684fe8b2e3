"""Networks by name."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from deploy.errors import UserError
from student.deeplab import DeepLabV3Plus
from student.edge import DEPTHS, FORMER_DEPTHS, SIZES, EdgeNet, edge_net
from student.ggcnn import GGCNN, GGCNN2
from student.grconvnet import GRConvNet
from student.unet import UNet
from teacher.external.hf_networks import hf_network
from teacher.external.own_network import check_own, is_own, own_network
from teacher.external.smp_networks import SmpNetwork
from teacher.external.torchvision_networks import TorchvisionNetwork
from teacher.own_stride import is_columnar
from teacher.pspnet import PSPNet


@dataclass(frozen=True)
class Network:
    """How to build a network."""

    constructor: Callable[..., nn.Module]
    """Takes the channels of the image, the number of outputs and options. The network that it returns outputs
    `teacher.pspnet.Output`."""
    options: frozenset[str]
    """Names of the options, all keyword-only arguments of the constructor."""
    finer: tuple[Mapping[str, Any], ...] = ()
    """Options that give finer outputs than the default ones, from coarse to fine."""


def _unet_fusion(
    in_channels: int, num_outputs: int, *, modalities: tuple[int, int] | None = None, **options: Any
) -> UNet:
    """Build a U-Net for two modalities.

    Args:
        in_channels: channels of the image.
        num_outputs: output maps.
        modalities: channels of each modality. By default, an image with more than three channels begins with an optical
            image of three; any other is divided into halves.
        options: other options of `UNet`.

    Raises:
        UserError: the image has one channel.
    """
    if in_channels < 2:
        raise UserError(
            f"unet-fusion: joins two modalities, and the image has {in_channels} channel; use unet"
        )
    first = 3 if in_channels > 3 else (in_channels + 1) // 2
    modalities = modalities or (first, in_channels - first)
    return UNet(in_channels, num_outputs, modalities=modalities, **options)


DEEPLAB_OPTIONS = frozenset({"output_stride", "head_channels", "dropout", "aux", "pretrained"})
PSPNET_OPTIONS = DEEPLAB_OPTIONS | {"detail", "align_corners", "contract_dilation"}
UNET_OPTIONS = frozenset({"width", "depth", "up", "extra", "weighted", "modalities", "dropout", "aux"})
GRCONVNET_OPTIONS = frozenset({"width", "dropout", "aux"})
EDGE_OPTIONS = frozenset(
    {"width", "dropout", "aux", "output_stride", "detail", "depths", "stride", "channels", "convolutions"}
)
EDGE_FINER: tuple[Mapping[str, Any], ...] = ({"detail": True}, {"output_stride": 2})
HF_OPTIONS = frozenset({"pretrained", "head", "head_channels", "dropout", "aux"})
NO_OPTIONS: frozenset[str] = frozenset()

FAMILIES: Mapping[str, Network] = {
    "pspnet": Network(PSPNet, PSPNET_OPTIONS, ({"detail": True},)),
    "deeplabv3plus": Network(DeepLabV3Plus, DEEPLAB_OPTIONS),
    "edge": Network(edge_net, EDGE_OPTIONS - {"width"}, EDGE_FINER),
    "smp": Network(SmpNetwork, frozenset({"pretrained"})),
    "torchvision": Network(TorchvisionNetwork, frozenset({"pretrained", "aux"})),
    "hf": Network(hf_network, HF_OPTIONS),
}
"""Families of networks: their constructors take what follows the family's name first, such as a timm backbone."""
EXTERNAL = ("smp", "torchvision", "hf")
"""Families of other packages."""
MEMBERS: Mapping[str, str] = {
    "pspnet": "timm name",
    "deeplabv3plus": "timm name",
    "edge": "width",
    "smp": "Architecture/encoder",
    "torchvision": "name",
    "hf": "folder or id",
}
"""What follows the name of each family."""


def _member(family: str, member: str) -> Network:
    network = FAMILIES[family]
    return replace(network, constructor=partial(network.constructor, member))


STUDENTS: Mapping[str, Network] = {
    "pspnet/resnet50": _member("pspnet", "resnet50"),
    "pspnet/resnet18": _member("pspnet", "resnet18"),
    "pspnet/mobilenetv3_large_100": _member("pspnet", "mobilenetv3_large_100"),
    "deeplabv3plus/mobilenetv2_100": _member("deeplabv3plus", "mobilenetv2_100"),
    **{name: Network(partial(EdgeNet, width=width), EDGE_OPTIONS, EDGE_FINER) for name, width in SIZES},
    "unet": Network(UNet, UNET_OPTIONS),
    "unet-wide": Network(partial(UNet, width=48, extra=1), UNET_OPTIONS),
    "unet-weighted": Network(partial(UNet, weighted=True), UNET_OPTIONS),
    "unet-fusion": Network(_unet_fusion, UNET_OPTIONS),
    "ggcnn": Network(GGCNN, NO_OPTIONS),
    "ggcnn2": Network(GGCNN2, NO_OPTIONS),
    "grconvnet": Network(GRConvNet, GRCONVNET_OPTIONS),
}
"""The listed students. Any other backbone that timm has and can dilate can be built too, as `pspnet/<timm name>` (such
as the teacher, `pspnet/resnet101`) or `deeplabv3plus/<timm name>`, and any width as `edge/<width>`. Networks of other
packages are in the families `smp`, `torchvision` and `hf`; `package.module:function` is one of the user's own."""

COMMON: Mapping[str, object] = {
    "output_stride": 8,
    "head_channels": 512,
    "dropout": 0.1,
    "detail": False,
    "pretrained": False,
    "align_corners": False,
    "contract_dilation": True,
    "depths": DEPTHS,
    "head": "pyramid",
}
"""Options that a configuration sets for every network, with their defaults: those of PSPNet (whose head is a pyramid),
and EdgeNet's `depths`."""


def build_network(arch: str, in_channels: int, num_outputs: int, **options: object) -> nn.Module:
    """Build the network called `arch`.

    A configuration sets the `COMMON` options for every network. If the network lacks one, its default is ignored; so is
    any value of `aux`, because a network without an auxiliary head outputs no auxiliary logits.

    Args:
        arch: a name in `STUDENTS`, `<family>/<member>` with a name in `FAMILIES`, or `package.module:function`.
        in_channels: channels of the image.
        num_outputs: output maps, the number of classes in segmentation.
        options: options of the network; its class describes them.

    Raises:
        UserError: no network has this name, or it lacks an option that is not at its default.
    """
    network = _network(arch)
    known = network.options
    unknown = [name for name in options if name not in known and name != "aux"]
    wrong = [name for name in unknown if name not in COMMON or options[name] != COMMON[name]]
    if wrong:
        defaults = ", ".join(f"{name} {COMMON[name]}" for name in wrong if name in COMMON)
        remedy = (
            f"give the default, {defaults}" if defaults else f"it has {', '.join(sorted(known)) or 'none'}"
        )
        raise UserError(f"{arch} has no option {', '.join(wrong)}; {remedy}")
    return network.constructor(in_channels, num_outputs, **{k: v for k, v in options.items() if k in known})


def _network(arch: str) -> Network:
    if arch in STUDENTS:
        return STUDENTS[arch]
    family, _, member = arch.partition("/")
    if family in FAMILIES and member:
        return _member(family, member)
    if is_own(arch):
        return Network(partial(own_network, arch), NO_OPTIONS)
    others = ", ".join(f"{family}/<{kind}>" for family, kind in MEMBERS.items())
    raise UserError(
        f"unknown network {arch!r}; known: {', '.join(STUDENTS)}, {others}, or your own as package.module:function"
    )


def is_external(arch: str) -> bool:
    """Whether the network called `arch` is of another package, or a user's own."""
    return arch.partition("/")[0] in EXTERNAL or is_own(arch)


def has_option(arch: str, option: str) -> bool:
    """Whether the network called `arch` has an option.

    Raises:
        UserError: no network has this name.
    """
    return option in _network(arch).options


def unrecorded_depths(arch: str) -> tuple[int, ...]:
    """The `depths` of the network called `arch` in a run, checkpoint or measurement that does not record them.

    Raises:
        UserError: no network has this name.
    """
    return FORMER_DEPTHS if has_option(arch, "depths") else DEPTHS


def finer_outputs(arch: str) -> tuple[Mapping[str, Any], ...]:
    """Options that give the network called `arch` finer outputs, from coarse to fine; empty if it has none.

    Raises:
        UserError: no network has this name.
    """
    family, _, member = arch.partition("/")
    return () if family == "pspnet" and is_columnar(member) else _network(arch).finer


def channels_of(network: nn.Module) -> int:
    """Channels of the images that a network takes: its `in_channels`, or else those of its first convolution."""
    first = next(p for p in network.parameters() if p.ndim == 4)
    return int(getattr(network, "in_channels", first.shape[1]))


def count_parameters(network: nn.Module) -> int:
    """Number of parameters that inference needs: all but those of the auxiliary head."""
    return sum(p.numel() for name, p in network.named_parameters() if not name.startswith("aux_head."))


def count_macs(network: nn.Module, in_channels: int, size: tuple[int, int]) -> int:
    """Multiply-accumulates of one inference on an image of `size` (height, width).

    They are counted on the meta device, or by a real inference of a network that reads values while it runs, as some
    transformers do.
    """
    try:
        return _count(copy.deepcopy(network).to("meta").eval(), in_channels, size)
    except (RuntimeError, NotImplementedError):
        return _count(copy.deepcopy(network).eval(), in_channels, size)


def _count(network: nn.Module, in_channels: int, size: tuple[int, int]) -> int:
    image = torch.zeros(1, in_channels, *size, device=next(network.parameters()).device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    return counter.get_total_flops() // 2


def student_lines(
    more: Sequence[str], in_channels: int, num_outputs: int, size: tuple[int, int]
) -> Iterator[str]:
    """List networks with their parameters in millions and their multiply-accumulates in billions.

    Args:
        more: names of networks to list after those of `STUDENTS`.
        in_channels: channels of the image.
        num_outputs: output maps.
        size: height and width of the image.

    Yields:
        A header, then one line per network. The line of a student that cannot be built for this image says why.

    Raises:
        UserError: a network of `more` cannot be built, or is one's own and fails.
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
        if is_own(arch):
            check_own(arch, network, in_channels, num_outputs, [size], training=False)
        parameters, macs = count_parameters(network), count_macs(network, in_channels, size)
        yield f"{arch:<32}{parameters / 1e6:>10.2f}{macs / 1e9:>20.2f}"
