"""The losses by name: of labels, of grasp maps, and of a teacher."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from distill.losses.common import cross_entropy
from distill.losses.distillation.cirkd import cirkd
from distill.losses.distillation.features import attention, feature, ifvd, pairwise
from distill.losses.distillation.grasp import grasp_kl, maps
from distill.losses.distillation.logits import boundary, cwd, dist, kl, mse
from distill.losses.supervised import grasp
from distill.losses.supervised.boundary import boundary as contour
from distill.losses.supervised.lovasz import lovasz, lovasz_hinge
from distill.losses.supervised.pixelwise import balanced_ce, focal
from distill.losses.supervised.region import dice, gdice, tversky


@dataclass(frozen=True)
class Loss:
    """A loss as it can be named in an expression (`distill.losses.expression`)."""

    function: Callable[..., Tensor]
    """Its options are the keyword-only parameters that have a number as default."""
    on: Literal["logits", "features", "either"]
    """What it compares: the outputs, a feature map that must be named, or the outputs unless one is named."""
    adapts: bool = False
    """On features, it needs the student's brought to the teacher's channels by a learned 1×1 convolution."""
    memory: bool = False
    """It needs a `memory`, a `distill.losses.distillation.cirkd.MemoryBank`."""


DISTILLATION_LOSSES: Mapping[str, Loss] = {
    "kl": Loss(kl, on="logits"),
    "cwd": Loss(cwd, on="either", adapts=True),
    "mse": Loss(mse, on="either", adapts=True),
    "dist": Loss(dist, on="logits"),
    "boundary": Loss(boundary, on="logits"),
    "feature": Loss(feature, on="features", adapts=True),
    "at": Loss(attention, on="features"),
    "skd": Loss(pairwise, on="features"),
    "ifvd": Loss(ifvd, on="features"),
    "cirkd": Loss(cirkd, on="features", adapts=True, memory=True),
    "maps": Loss(maps, on="logits"),
    "grasp_kl": Loss(grasp_kl, on="logits"),
}
"""Of a teacher: `(student, teacher, pixels, **options) -> N losses`."""

SEGMENTATION_LOSSES: Mapping[str, Loss] = {
    "ce": Loss(cross_entropy, on="logits"),
    "balanced_ce": Loss(balanced_ce, on="logits"),
    "focal": Loss(focal, on="logits"),
    "dice": Loss(dice, on="logits"),
    "gdice": Loss(gdice, on="logits"),
    "tversky": Loss(tversky, on="logits"),
    "lovasz": Loss(lovasz, on="logits"),
    "lovasz_hinge": Loss(lovasz_hinge, on="logits"),
    "boundary": Loss(contour, on="logits"),
}
"""Of labels: `(logits, label, valid, class_weights, **options) -> scalar`."""

GRASP_LOSSES: Mapping[str, Loss] = {
    "smooth_l1": Loss(grasp.smooth_l1, on="logits"),
    "mse": Loss(grasp.mse, on="logits"),
    "bce": Loss(grasp.bce, on="logits"),
}
"""Of the targets of grasp maps: `(maps, target, valid, **options) -> scalar`."""


def loss_lines() -> Iterator[str]:
    """All losses, those of each table under a heading."""
    yield "against labels (--loss.task), added up with weights: ce + 0.5*dice"
    yield from _lines_of(SEGMENTATION_LOSSES)
    yield ""
    yield "of grasp maps (--loss.task): bce"
    yield from _lines_of(GRASP_LOSSES)
    yield ""
    yield "of a teacher (--distill.loss), added up with weights: kl(t=2) + 3*cwd(layer4, t=4)"
    yield from _lines_of(DISTILLATION_LOSSES)
    yield "FEATURE is layer3, layer4 or head of a PSPNet"


def _lines_of(methods: Mapping[str, Loss]) -> Iterator[str]:
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
