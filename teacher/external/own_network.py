"""A network of the user's own: any function that is named `package.module:function`."""

import copy
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deploy.errors import UserError, did_you_mean
from teacher.external.origin import check_logits, noise
from teacher.pspnet import Output

NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
"""How such a network is named."""
PROBE = 64
"""Side of the image that tells whether a network returns `Output`."""
KEYS = ("logits", "out")
"""Names of the logits where a network returns a mapping."""


def is_own(arch: str) -> bool:
    """Whether the name is that of a user's own network."""
    return NAME.fullmatch(arch) is not None


class OwnNetwork(nn.Module):
    """A network that returns logits N×K×h×w, or a mapping with `logits` or `out`, as one that returns `Output`.

    A mapping may have `aux` (logits of an auxiliary head, used in training mode only) and `features`, maps by name.

    Args:
        network: the user's network.
        in_channels: channels of the image.
    """

    def __init__(self, network: nn.Module, in_channels: int) -> None:
        super().__init__()
        self.network = network
        self.in_channels = in_channels

    def forward(self, x: Tensor) -> Output:
        return _output(self.network(x), self.training)


def own_network(arch: str, in_channels: int, num_outputs: int) -> nn.Module:
    """Build a network of the user's own; `check_own` checks what it returns.

    Args:
        arch: `package.module:function`. The module is imported from where Python finds packages, and from the current
            folder. The function takes `in_channels` and `num_outputs`, and returns a module: from normalized images
            N×C×H×W, at least of the sizes that are asked for, to logits N×K×h×w at any stride, a mapping (see
            `OwnNetwork`), or `teacher.pspnet.Output`.
        in_channels: C.
        num_outputs: K.

    Raises:
        UserError: the module cannot be imported, has no such function, or it returns no network.
    """
    build = _function(arch)
    network = _run(arch, "cannot be built", lambda: build(in_channels, num_outputs))
    if not isinstance(network, nn.Module):
        raise UserError(f"{arch}: returns {_shown(network)}; it must return a torch.nn.Module")
    return network if _returns_ours(network, in_channels) else OwnNetwork(network, in_channels)


@torch.no_grad()
def check_own(
    arch: str,
    network: nn.Module,
    in_channels: int,
    num_outputs: int,
    sizes: Iterable[tuple[int, int]],
    *,
    training: bool,
) -> None:
    """Run a network of `own_network` on noise, and check what it returns.

    Args:
        arch: its name.
        network: stays as it is.
        in_channels: channels of the images.
        num_outputs: maps that it must return.
        sizes: heights and widths of images.
        training: in training mode, on two images, instead of one in evaluation mode.

    Raises:
        UserError: it fails, or returns something else than logits.
    """
    inner = network.network if isinstance(network, OwnNetwork) else network
    copied = _run(arch, "cannot be copied", lambda: copy.deepcopy(inner)).train(training)
    weight = next(network.parameters(), torch.empty(0))
    for size in sizes:
        images = noise((1 + training, in_channels, *size)).to(weight.device)
        mode = " in training mode" if training else ""
        found = _run(arch, f"fails{mode} on images {_sides(images)}", lambda images=images: copied(images))
        output = _checked(f"{arch}: returns{mode}", found, images, num_outputs, training=training)
        check_logits(arch, output.logits)


def _function(arch: str) -> Callable[..., Any]:
    module_name, _, name = arch.partition(":")
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # last, so that nothing there hides an installed package
    module = _run(arch, f"cannot import {module_name}", lambda: import_module(module_name))
    function = getattr(module, name, None)
    if not callable(function):
        hint = did_you_mean(name, [each for each in vars(module) if callable(getattr(module, each))])
        raise UserError(f"{arch}: {module_name} has no function {name}{hint}")
    return function


def _run(arch: str, what: str, action: Callable[[], Any]) -> Any:
    """The result of the user's code; its exceptions become one line that names the place."""
    try:
        return action()
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # SystemExit would end the run with the user's code, perhaps 0
        last = traceback.extract_tb(error.__traceback__)[-1]
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"{arch}: {what}: {type(error).__name__}: {reason} ({Path(last.filename).name}, line {last.lineno})"
        ) from error


@torch.no_grad()
def _returns_ours(network: nn.Module, in_channels: int) -> bool:
    """Whether it returns `Output`; a network that takes images of other sizes alone counts as one that does not."""
    weight = next(network.parameters(), torch.empty(0))
    training = network.training
    try:
        found = network.eval()(torch.zeros(1, in_channels, PROBE, PROBE, device=weight.device))
    except Exception:  # whatever the user's code raises; `check_own` says it, of the sizes that count
        found = None
    network.train(training)
    return isinstance(found, Output)


def _output(found: Any, training: bool) -> Output:
    if isinstance(found, Output):
        return found
    if not isinstance(found, Mapping):
        return Output(found, None)
    logits = next(found[key] for key in KEYS if key in found)
    return Output(logits, found.get("aux") if training else None, found.get("features", {}))


def _checked(returns: str, found: object, images: Tensor, num_outputs: int, *, training: bool) -> Output:
    if isinstance(found, Mapping) and not any(key in found for key in KEYS):
        raise UserError(
            f"{returns} a mapping of {', '.join(map(str, found))}; its logits must be called logits"
        )
    output = _output(found, training)
    if not isinstance(output.logits, Tensor):
        raise UserError(f"{returns} {_shown(output.logits)}; it must return logits, or a mapping with them")
    if not isinstance(output.features, Mapping):
        raise UserError(
            f"{returns} features in {_shown(output.features)}; they must be a mapping of maps by name"
        )
    for what, maps, count in (
        ("", output.logits, num_outputs),
        *([] if output.aux is None else [("aux of ", output.aux, num_outputs)]),
        *((f"feature {name} of ", maps, None) for name, maps in output.features.items()),
    ):
        if not _are_maps(maps, len(images), count):
            kind = "feature maps" if count is None else "logits"
            raise UserError(
                f"{returns} {what}{_shown(maps)} for images {_sides(images)}; it must return floating {kind}"
                f" {len(images)}×{count or 'C'}×h×w"
            )
    return output


def _are_maps(maps: object, images: int, count: int | None) -> bool:
    if not isinstance(maps, Tensor) or maps.ndim != 4 or not maps.is_floating_point():
        return False
    return len(maps) == images and count in (None, maps.shape[1])


def _sides(images: Tensor) -> str:
    return "×".join(map(str, images.shape))


def _shown(value: object) -> str:
    if isinstance(value, Tensor):
        shape, kind = "×".join(map(str, value.shape)), str(value.dtype).removeprefix("torch.")
        return f"a tensor {shape or 'of one number'} of {kind}"
    return f"a {type(value).__name__}"
