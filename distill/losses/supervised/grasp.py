"""Losses of grasp maps against their targets.

A network outputs N×4×h×w, in the order of `deploy.tasks.grasp.geometry.MAPS`: the quality of a grasp at each pixel,
cos 2θ and sin 2θ of its angle, and its width, all as they leave the last convolution. Targets are N×4×H×W. How to read
the quality depends on the loss that the network was trained by: `quality_kind` tells, and `quality_of` converts it to
the deployed quality, from 0 to 1.

Every image weighs by its valid pixels, so the loss does not depend on how a batch is divided.
"""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from deploy.errors import UserError
from distill.losses.common import at_size_of, weighted_mean
from distill.losses.distillation.common import image_mean

QualityKind = Literal["clamp", "sigmoid"]
"""Form of the quality at the output of a network: a number that is clamped to 0..1, or the logit of a probability."""


def smooth_l1(
    maps: Tensor, target: Tensor, valid: Tensor, *, beta: float = 1.0, outside: float = 0.0
) -> Tensor:
    """Smooth L1 of all four maps, mean over maps and valid pixels, as in GR-ConvNet.

    Kumra et al. (IROS 2020, arXiv:1909.04810), who sum over the maps: four times this value.

    Args:
        maps: floating N×4×h×w; upsampled bilinearly to the target.
        target: N×4×H×W floating, any value where not valid.
        valid: N×H×W bool, False for void, no data and padding.
        beta: ≥ 0; an error e costs e²/(2·beta) below `beta`, and |e| - beta/2 above. 0 is plain L1.
        outside: target of cos 2θ where the target's quality is 0. The authors draw the angle 0 there: 1.

    Returns:
        A scalar ≥ 0, float32 or float64; 0, with zero gradient, if no pixel is valid.
    """
    maps, target = _compared(maps, _with_outside(target, outside), valid)
    loss = F.smooth_l1_loss(maps, target, reduction="none", beta=beta).mean(1)
    return weighted_mean(loss, valid.to(loss))


def mse(maps: Tensor, target: Tensor, valid: Tensor, *, outside: float = 0.0) -> Tensor:
    """Squared error of all four maps, mean over maps and valid pixels, as in GG-CNN.

    Morrison et al. (RSS 2018, arXiv:1804.05172), who sum over the maps: four times this value.

    Args:
        maps: floating N×4×h×w; upsampled bilinearly to the target.
        target: N×4×H×W floating, any value where not valid.
        valid: N×H×W bool, False for void, no data and padding.
        outside: as in `smooth_l1`.

    Returns:
        A scalar ≥ 0, float32 or float64; 0, with zero gradient, if no pixel is valid.
    """
    maps, target = _compared(maps, _with_outside(target, outside), valid)
    loss = (maps - target).square().mean(1)
    return weighted_mean(loss, valid.to(loss))


def bce(maps: Tensor, target: Tensor, valid: Tensor, *, beta: float = 1.0, geometry: float = 1.0) -> Tensor:
    """Cross-entropy of the quality, a logit, + `geometry` · smooth L1 of the other maps where there is a grasp.

    Angle and width have no meaning at a pixel without a grasp, so the loss of the other maps is a mean over each
    image's pixels weighted by the target's quality, 0 to 1. In an image without a grasp, only the quality counts.

    Args:
        maps: floating N×4×h×w; upsampled bilinearly to the target. The deployed quality is the sigmoid of map 0.
        target: N×4×H×W floating, any value where not valid; the quality is clamped to 0..1.
        valid: N×H×W bool, False for void, no data and padding.
        beta: ≥ 0, as in `smooth_l1`.
        geometry: weight ≥ 0 of the other maps.

    Returns:
        A scalar ≥ 0, float32 or float64; 0, with zero gradient, if no pixel is valid.
    """
    maps, target = _compared(maps, target, valid)
    quality = target[:, 0].clamp(0, 1)
    seen = valid.to(maps)
    is_grasp = F.binary_cross_entropy_with_logits(maps[:, 0], quality, reduction="none")
    shape = F.smooth_l1_loss(maps[:, 1:], target[:, 1:], reduction="none", beta=beta).mean(1)
    losses = image_mean(is_grasp, seen) + geometry * image_mean(shape, seen * quality)
    return weighted_mean(losses, seen.flatten(1).sum(1))


def quality_kind(losses: Iterable[str]) -> QualityKind:
    """Form of the quality at the output of a network that is trained by the grasp losses of these names.

    Raises:
        UserError: some losses take the quality as a logit, others as a number.
    """
    names = sorted(set(losses))
    if "bce" not in names:
        return "clamp"
    if len(names) > 1:
        others = ", ".join(name for name in names if name != "bce")
        raise UserError(
            f"bce takes the quality as a logit, {others} as a number; use bce alone, or leave it out"
        )
    return "sigmoid"


def check_taught(option: str, loss: str, kind: QualityKind) -> None:
    """Check that a distillation loss takes the quality in the form that the networks output.

    Args:
        option: the command-line option that names the loss, for the message.
        loss: name of the distillation loss.
        kind: form of the quality, of teacher and student.

    Raises:
        UserError: the loss takes the quality in the other form.
    """
    if loss == "maps" and kind == "sigmoid":
        raise UserError(f"{option} maps: takes the quality as a number, and bce trains a logit; use grasp_kl")
    if loss == "grasp_kl" and kind == "clamp":
        raise UserError(
            f"{option} grasp_kl: takes the quality as a logit, and only bce trains one; use maps(quality=0.5)"
        )


def quality_of(raw: Tensor, kind: QualityKind) -> Tensor:
    """The deployed quality, 0..1, computed from map 0 of a network's output `raw`, of any shape."""
    return torch.sigmoid(raw) if kind == "sigmoid" else raw.clamp(0, 1)


def _compared(maps: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    maps = at_size_of(target, maps)
    return maps, torch.where(valid.unsqueeze(1), target.to(maps), 0)


def _with_outside(target: Tensor, cosine: float) -> Tensor:
    """The target with another cos 2θ where there is no grasp."""
    if cosine == 0:
        return target
    quality, cos, *others = target.unbind(1)
    return torch.stack([quality, cos.where(quality > 0, cosine), *others], dim=1)
