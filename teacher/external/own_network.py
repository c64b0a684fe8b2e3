"""A network of the user's own: any function that is named `package.module:function`."""

import re
import sys
import traceback
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deploy.errors import UserError, did_you_mean
from teacher.pspnet import Output

NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
"""How such a network is named."""
PROBE = 64
"""Side of the image that checks what a network returns."""
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
        found = self.network(x)
        if not isinstance(found, Mapping):
            return Output(found, None)
        logits = next(found[key] for key in KEYS if key in found)
        return Output(logits, found.get("aux") if self.training else None, found.get("features", {}))


def own_network(arch: str, in_channels: int, num_outputs: int) -> nn.Module:
    """Build a network of the user's own, and check what it returns.

    Args:
        arch: `package.module:function`. The module is imported from where Python finds packages, and from the current
            folder. The function takes `in_channels` and `num_outputs`, and returns a module: from normalized images
            N×C×H×W of any size to logits N×K×h×w at any stride, a mapping (see `OwnNetwork`), or
            `teacher.pspnet.Output`.
        in_channels: C.
        num_outputs: K.

    Raises:
        UserError: the module cannot be imported, has no such function, or the network fails on an image or returns
            something else.
    """
    build = _function(arch)
    network = _run(arch, "cannot be built", lambda: build(in_channels, num_outputs))
    if not isinstance(network, nn.Module):
        raise UserError(f"{arch}: returns {_shown(network)}; it must return a torch.nn.Module")
    found = _run(
        arch, f"fails on images 1×{in_channels}×{PROBE}×{PROBE}", lambda: _on_probe(network, in_channels)
    )
    _check(arch, found, num_outputs)
    return network if isinstance(found, Output) else OwnNetwork(network, in_channels)


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
def _on_probe(network: nn.Module, in_channels: int) -> Any:
    weight = next(network.parameters(), torch.empty(0))
    training = network.training
    found = network.eval()(torch.zeros(1, in_channels, PROBE, PROBE, device=weight.device))
    network.train(training)
    return found


def _check(arch: str, found: object, num_outputs: int) -> None:
    logits = found.logits if isinstance(found, Output) else found
    if isinstance(found, Mapping):
        logits = next((found[key] for key in KEYS if key in found), None)
        if logits is None:
            raise UserError(
                f"{arch}: returns a mapping of {', '.join(map(str, found))}; its logits must be called logits"
            )
    if not isinstance(logits, Tensor):
        raise UserError(f"{arch}: returns {_shown(logits)}; it must return logits, or a mapping with them")
    if logits.ndim != 4 or logits.shape[:2] != (1, num_outputs) or not logits.is_floating_point():
        raise UserError(
            f"{arch}: returns {_shown(logits)} for an image 1×C×{PROBE}×{PROBE}; it must return floating logits"
            f" 1×{num_outputs}×h×w"
        )


def _shown(value: object) -> str:
    if isinstance(value, Tensor):
        shape, kind = "×".join(map(str, value.shape)), str(value.dtype).removeprefix("torch.")
        return f"a tensor {shape or 'of one number'} of {kind}"
    return f"a {type(value).__name__}"
