"""Networks by name."""

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from deploy.errors import UserError
from teacher.pspnet import PSPNet

STUDENTS: dict[str, Callable[..., nn.Module]] = {
    f"pspnet/{backbone}": partial(PSPNet, backbone)
    for backbone in ("resnet50", "resnet18", "mobilenetv3_large_100")
}
"""The listed students. Any other `pspnet/<timm name>` builds as well, the teacher's `pspnet/resnet101` among them."""


def build_network(arch: str, in_channels: int, num_outputs: int, **options: object) -> nn.Module:
    """The network called `arch`; `options` go to its constructor (see `teacher.pspnet.PSPNet`).

    Raises:
        UserError: no such network.
    """
    if arch in STUDENTS:
        return STUDENTS[arch](in_channels, num_outputs, **options)
    family, _, backbone = arch.partition("/")
    if family == "pspnet" and backbone:
        return PSPNet(backbone, in_channels, num_outputs, **options)  # pyright: ignore[reportArgumentType]
    raise UserError(f"unknown network {arch!r}; known: {', '.join(STUDENTS)}, or pspnet/<timm name>")


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
    """One line a network: name, parameters in millions and multiply-accumulates in billions at `size`."""
    yield f"{'student':<32}{'params M':>10}{f'GMAC at {size[0]}×{size[1]}':>20}"
    for arch in (*STUDENTS, *more):
        network = build_network(arch, in_channels, num_outputs)
        parameters, macs = count_parameters(network), count_macs(network, in_channels, size)
        yield f"{arch:<32}{parameters / 1e6:>10.2f}{macs / 1e9:>20.2f}"
