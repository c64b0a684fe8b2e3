"""Distillation of grasp maps (see `distill.losses.distillation.common` for what distillation losses share)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.losses.distillation.common import Pixels, cell_weight, image_mean, pair


def maps(
    student: Tensor, teacher: Tensor, pixels: Pixels, *, beta: float = 0.1, quality: float = 0.0
) -> Tensor:
    """Smooth L1 between the maps of student and teacher, mean over maps and the pixels of an image.

    The loss of GG-CNN's grasp maps (Morrison et al., RSS 2018, arXiv:1804.05172: quality, cos 2θ, sin 2θ, width), with
    the teacher's maps as the target; `mse` is the squared form. As in `torch.nn.functional.smooth_l1_loss`, errors
    below `beta` cost their square over 2·beta, larger ones their size less beta/2.

    Args:
        student: maps N×C×h×w; resized bilinearly to the teacher's h×w where strides differ.
        teacher: maps N×C×h×w, detached here; map 0 is the quality.
        pixels: labels and weights, at any size.
        beta: ≥ 0; 0 is plain L1.
        quality: 0 to 1: how much a cell counts by the teacher's quality there, clamped to 0..1. With 0 all cells
            count alike, with 1 those where the teacher sees no grasp count nothing.

    Returns:
        N values ≥ 0; 0, with zero gradient, for an image without weight.

    Raises:
        UserError: the two have different numbers of maps.
    """
    student, teacher = pair(student, teacher)
    weight = cell_weight(pixels, teacher.shape[-2:]).to(student)
    weight = weight * ((1 - quality) + quality * teacher[:, 0].clamp(0, 1))
    return image_mean(F.smooth_l1_loss(student, teacher, reduction="none", beta=beta).mean(1), weight)


def grasp_kl(
    student: Tensor, teacher: Tensor, pixels: Pixels, *, beta: float = 1.0, geometry: float = 1.0
) -> Tensor:
    """KL(teacher ‖ student) of the quality, a logit, + `geometry` · smooth L1 of the other maps where it sees a grasp.

    To networks that are trained by `bce` (`distill.losses.supervised.grasp`) what `maps` is to those of regression: the quality is
    the probability of a grasp at the pixel, and angle and width mean nothing where there is none, for the teacher too.

    Args:
        student: maps N×C×h×w; resized bilinearly to the teacher's h×w where strides differ.
        teacher: maps N×C×h×w, detached here; map 0 is the logit of the quality.
        pixels: labels and weights, at any size.
        beta: ≥ 0, as in `maps`.
        geometry: weight ≥ 0 of the other maps, a mean over the cells where the teacher's quality is above ½.

    Returns:
        N values ≥ 0; 0, with zero gradient, for an image without weight.

    Raises:
        UserError: the two have different numbers of maps.
    """
    student, teacher = pair(student, teacher)
    weight = cell_weight(pixels, teacher.shape[-2:]).to(student)
    seen, sees = student[:, 0], teacher[:, 0]
    yes = torch.sigmoid(sees) * (F.logsigmoid(sees) - F.logsigmoid(seen))
    no = torch.sigmoid(-sees) * (F.logsigmoid(-sees) - F.logsigmoid(-seen))
    shape = F.smooth_l1_loss(student[:, 1:], teacher[:, 1:], reduction="none", beta=beta).mean(1)
    return image_mean(yes + no, weight) + geometry * image_mean(shape, weight * (sees > 0))
