"""Distillation losses on grasp maps (see `distill.losses.distillation.common` for what they share).

An image without weight is one in which no pixel counts: all are void or without data.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.losses.distillation.common import Pixels, cell_weight, image_mean, pair


def maps(
    student: Tensor, teacher: Tensor, pixels: Pixels, *, beta: float = 0.1, quality: float = 0.0
) -> Tensor:
    """Smooth L1 between the maps of student and teacher, mean over maps and the pixels of an image.

    The maps are those of GG-CNN (Morrison et al., RSS 2018, arXiv:1804.05172): quality, cos 2θ, sin 2θ, width. The
    teacher's are the target; `mse` is the squared form. As in `torch.nn.functional.smooth_l1_loss`, an error e costs
    e²/(2·beta) below `beta`, and |e| - beta/2 above.

    Args:
        student: maps, floating N×C×h×w; resized bilinearly to the teacher's h×w if strides differ.
        teacher: maps, floating N×C×h×w; detached. Map 0 is the quality.
        pixels: labels and weights, at any size; a weight of 0 marks void and no data.
        beta: ≥ 0; 0 is plain L1.
        quality: 0 to 1, how much the weight of a cell depends on the teacher's quality there, clamped to 0..1. At 0,
            all cells count alike; at 1, cells where the teacher sees no grasp do not count.

    Returns:
        N values ≥ 0, float32 or float64; 0, with zero gradient, for an image without weight.

    Raises:
        UserError: student and teacher have different numbers of maps.
    """
    student, teacher = pair(student, teacher)
    weight = cell_weight(pixels, teacher.shape[-2:]).to(student)
    weight = weight * ((1 - quality) + quality * teacher[:, 0].clamp(0, 1))
    return image_mean(F.smooth_l1_loss(student, teacher, reduction="none", beta=beta).mean(1), weight)


def grasp_kl(
    student: Tensor, teacher: Tensor, pixels: Pixels, *, beta: float = 1.0, geometry: float = 1.0
) -> Tensor:
    """KL(teacher ‖ student) of the quality logit + `geometry` · smooth L1 of the other maps at the teacher's grasps.

    The counterpart of `maps` for networks trained by `bce` (`distill.losses.supervised.grasp`). There the quality is
    the probability of a grasp at the pixel, and angle and width have no meaning where there is none; this holds for
    the teacher's maps too.

    Args:
        student: maps, floating N×C×h×w; resized bilinearly to the teacher's h×w if strides differ.
        teacher: maps, floating N×C×h×w; detached. Map 0 is the logit of the quality.
        pixels: labels and weights, at any size; a weight of 0 marks void and no data.
        beta: ≥ 0, as in `maps`.
        geometry: weight ≥ 0 of the other maps, whose mean is taken over cells where the teacher's quality is above ½.

    Returns:
        N values ≥ 0, float32 or float64; 0, with zero gradient, for an image without weight.

    Raises:
        UserError: student and teacher have different numbers of maps.
    """
    student, teacher = pair(student, teacher)
    weight = cell_weight(pixels, teacher.shape[-2:]).to(student)
    seen, sees = student[:, 0], teacher[:, 0]
    yes = torch.sigmoid(sees) * (F.logsigmoid(sees) - F.logsigmoid(seen))
    no = torch.sigmoid(-sees) * (F.logsigmoid(-sees) - F.logsigmoid(-seen))
    shape = F.smooth_l1_loss(student[:, 1:], teacher[:, 1:], reduction="none", beta=beta).mean(1)
    return image_mean(yes + no, weight) + geometry * image_mean(shape, weight * (sees > 0))
