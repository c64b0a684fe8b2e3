"""The distillation losses by name."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from distill.losses.cross_image import cirkd
from distill.losses.features import attention, feature, ifvd, pairwise
from distill.losses.logits import boundary, cwd, dist, kl, mse
from distill.losses.maps import maps


@dataclass(frozen=True)
class Method:
    """A loss as it can be named in an expression (`distill.losses.expression`)."""

    function: Callable[..., Tensor]
    """Its options are the keyword-only parameters that have a number as default."""
    on: Literal["logits", "features", "either"]
    """What it compares: the outputs, a feature map that must be named, or the outputs unless one is named."""
    adapts: bool = False
    """On features, it needs the student's brought to the teacher's channels by a learned 1×1 convolution."""
    memory: bool = False
    """It needs a `memory`, a `distill.losses.cross_image.MemoryBank`."""


METHODS: Mapping[str, Method] = {
    "kl": Method(kl, on="logits"),
    "cwd": Method(cwd, on="either", adapts=True),
    "mse": Method(mse, on="either", adapts=True),
    "dist": Method(dist, on="logits"),
    "boundary": Method(boundary, on="logits"),
    "feature": Method(feature, on="features", adapts=True),
    "at": Method(attention, on="features"),
    "skd": Method(pairwise, on="features"),
    "ifvd": Method(ifvd, on="features"),
    "cirkd": Method(cirkd, on="features", adapts=True, memory=True),
    "maps": Method(maps, on="logits"),
}


def loss_lines(methods: Mapping[str, Method] = METHODS) -> Iterator[str]:
    """One line a loss: how it is written, with the options' defaults, and what it is."""
    for name, method in methods.items():
        where = {"logits": [], "features": ["FEATURE"], "either": ["[FEATURE]"]}[method.on]
        options = [
            f"{p.name}={p.default:g}"
            for p in inspect.signature(method.function).parameters.values()
            if p.kind is p.KEYWORD_ONLY and isinstance(p.default, int | float)
        ]
        call = f"{name}({', '.join([*where, *options])})"
        yield f"{call:<56}{(method.function.__doc__ or '').splitlines()[0]}"
    yield "FEATURE is layer3, layer4 or head of a PSPNet; add losses up with weights: kl(t=2) + 3*cwd(layer4, t=4)"
