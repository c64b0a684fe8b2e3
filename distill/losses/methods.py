"""The distillation losses by name."""

from collections.abc import Callable, Mapping
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
