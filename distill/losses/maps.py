"""Distillation of regressed maps (see `distill.losses.pixels` for what distillation losses share)."""

from torch import Tensor
from torch.nn import functional as F

from distill.losses.pixels import Pixels, cell_weight, image_mean, pair


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
