"""The losses by name: against labels, against the targets of grasp maps, and against a teacher."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from distill.losses.common import cross_entropy
from distill.losses.distillation.cirkd import cirkd
from distill.losses.distillation.features import attention, cosine, feature, ifvd, pairwise
from distill.losses.distillation.grasp import grasp_kl, maps
from distill.losses.distillation.logits import boundary, cwd, dist, hard, kl, mse
from distill.losses.distillation.regions import jaccard
from distill.losses.supervised import grasp
from distill.losses.supervised.boundary import boundary as contour
from distill.losses.supervised.lovasz import lovasz, lovasz_hinge
from distill.losses.supervised.pixelwise import balanced_ce, focal
from distill.losses.supervised.region import dice, gdice, tversky


@dataclass(frozen=True)
class Loss:
    """A loss as it can be named in an expression (`distill.losses.expression`)."""

    function: Callable[..., Tensor]
    """Its options are the keyword-only parameters whose default is a number."""
    on: Literal["logits", "features", "either"]
    """What it compares: logits, a feature map, which the expression must name, or logits unless a feature is named."""
    adapts: bool = False
    """On features, a learned 1×1 convolution must first map the student's channels to the teacher's."""
    memory: bool = False
    """It needs the argument `memory`, a `distill.losses.distillation.cirkd.MemoryBank`."""

    @property
    def options(self) -> dict[str, float]:
        """The options that an expression may set, with their defaults; an int default allows whole numbers only."""
        return {
            parameter.name: parameter.default
            for parameter in inspect.signature(self.function).parameters.values()
            if parameter.kind is parameter.KEYWORD_ONLY and isinstance(parameter.default, int | float)
        }


DISTILLATION_LOSSES: dict[str, Loss] = {
    "kl": Loss(kl, on="logits"),
    "hard": Loss(hard, on="logits"),
    "cwd": Loss(cwd, on="either", adapts=True),
    "mse": Loss(mse, on="either", adapts=True),
    "dist": Loss(dist, on="logits"),
    "boundary": Loss(boundary, on="logits"),
    "jaccard": Loss(jaccard, on="logits"),
    "feature": Loss(feature, on="features", adapts=True),
    "cosine": Loss(cosine, on="features", adapts=True),
    "at": Loss(attention, on="features"),
    "skd": Loss(pairwise, on="features"),
    "ifvd": Loss(ifvd, on="features"),
    "cirkd": Loss(cirkd, on="features", adapts=True, memory=True),
    "maps": Loss(maps, on="logits"),
    "grasp_kl": Loss(grasp_kl, on="logits"),
}
"""Against a teacher: `(student, teacher, pixels, **options)` returns N losses, one per image."""

SEGMENTATION_LOSSES: dict[str, Loss] = {
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
"""Against labels: `(logits, label, valid, class_weights, **options)` returns a scalar."""

GRASP_LOSSES: dict[str, Loss] = {
    "smooth_l1": Loss(grasp.smooth_l1, on="logits"),
    "mse": Loss(grasp.mse, on="logits"),
    "bce": Loss(grasp.bce, on="logits"),
}
"""Against the targets of grasp maps: `(maps, target, valid, **options)` returns a scalar."""


def lines_of(losses: Mapping[str, Loss]) -> Iterator[str]:
    """Yield a line per loss: how to write it, with the defaults of its options, and a short description."""
    for name, loss in losses.items():
        where = {"logits": [], "features": ["FEATURE"], "either": ["[FEATURE]"]}[loss.on]
        options = [f"{option}={default:g}" for option, default in loss.options.items()]
        call = f"{name}({', '.join([*where, *options])})"
        yield f"{call:<56}{(loss.function.__doc__ or '').splitlines()[0]}"
