"""The losses by name: of labels, of grasp maps, and of a teacher."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from distill.losses import grasp
from distill.losses.contour import boundary as contour
from distill.losses.cross_image import cirkd
from distill.losses.features import attention, feature, ifvd, pairwise
from distill.losses.labels import balanced_ce, focal
from distill.losses.logits import boundary, cwd, dist, kl, mse
from distill.losses.lovasz import lovasz, lovasz_hinge
from distill.losses.maps import grasp_kl, maps
from distill.losses.region import dice, gdice, tversky
from distill.losses.task import cross_entropy


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
    "grasp_kl": Method(grasp_kl, on="logits"),
}
"""Of a teacher: `(student, teacher, pixels, **options) -> N losses`."""

LABEL_METHODS: Mapping[str, Method] = {
    "ce": Method(cross_entropy, on="logits"),
    "balanced_ce": Method(balanced_ce, on="logits"),
    "focal": Method(focal, on="logits"),
    "dice": Method(dice, on="logits"),
    "gdice": Method(gdice, on="logits"),
    "tversky": Method(tversky, on="logits"),
    "lovasz": Method(lovasz, on="logits"),
    "lovasz_hinge": Method(lovasz_hinge, on="logits"),
    "boundary": Method(contour, on="logits"),
}
"""Of labels: `(logits, label, valid, class_weights, **options) -> scalar`."""

GRASP_METHODS: Mapping[str, Method] = {
    "smooth_l1": Method(grasp.smooth_l1, on="logits"),
    "mse": Method(grasp.mse, on="logits"),
    "bce": Method(grasp.bce, on="logits"),
}
"""Of the targets of grasp maps: `(maps, target, valid, **options) -> scalar`."""


def loss_lines() -> Iterator[str]:
    """All losses, those of each table under a heading."""
    yield "against labels (--loss.task), added up with weights: ce + 0.5*dice"
    yield from _lines_of(LABEL_METHODS)
    yield ""
    yield "of grasp maps (--loss.task): bce"
    yield from _lines_of(GRASP_METHODS)
    yield ""
    yield "of a teacher (--distill.loss), added up with weights: kl(t=2) + 3*cwd(layer4, t=4)"
    yield from _lines_of(METHODS)
    yield "FEATURE is layer3, layer4 or head of a PSPNet"


def _lines_of(methods: Mapping[str, Method]) -> Iterator[str]:
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
