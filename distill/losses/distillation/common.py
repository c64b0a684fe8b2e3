"""What distillation losses share: which pixels count, how much, and for which cell of a coarser grid.

Every distillation loss is a function `(student, teacher, pixels, **options)` that returns N losses, one per image: a
mean over the cells of the image, in which a cell weighs as much as its pixels do. A loss therefore does not change when
an image is tiled, pixels of weight 0 (void, no data, padding) have no influence, and images can be split over
micro-batches and processes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from deploy.errors import UserError
from distill.losses.common import at_least_float32


@dataclass(frozen=True)
class Pixels:
    """The labels of a batch, and how much the teacher's output counts at each pixel."""

    weight: Tensor
    """Floating N×H×W, ≥ 0; 0 where a pixel is not valid."""
    label: Tensor
    """int64 N×H×W, 0..num_classes-1; any value where the weight is 0."""
    num_classes: int


def cell_weight(pixels: Pixels, size: torch.Size) -> Tensor:
    """Mean weight of the pixels of each cell of a grid of `size` (h, w): N×h×w."""
    weight = pixels.weight
    if weight.shape[-2:] == size:
        return weight
    return F.interpolate(weight.unsqueeze(1), size, mode="area").squeeze(1)


def class_weight(pixels: Pixels, size: torch.Size) -> Tensor:
    """`cell_weight` by class: N×K×h×w, the part of a cell's weight that belongs to pixels of each class."""
    counts = pixels.weight > 0
    one_hot = F.one_hot(torch.where(counts, pixels.label, 0), pixels.num_classes).permute(0, 3, 1, 2)
    weight = one_hot * pixels.weight.unsqueeze(1)
    return weight if weight.shape[-2:] == size else F.interpolate(weight, size, mode="area")


def image_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Σ weight·values / Σ weight over all but the first axis: N values; 0, with zero gradient, if all weights are 0."""
    total = weight.flatten(1).sum(1)
    return (values * weight).flatten(1).sum(1) / torch.where(total > 0, total, 1)


def pair(student: Tensor, teacher: Tensor, *, same_maps: bool = True) -> tuple[Tensor, Tensor]:
    """Prepare the maps of student and teacher for comparison.

    Args:
        student: floating N×C×h×w; resized bilinearly to the teacher's h×w if strides differ.
        teacher: floating N×C×h×w; detached.
        same_maps: whether the two must have the same number of maps C.

    Returns:
        Both in float32, or float64 if they were.

    Raises:
        UserError: `same_maps`, and the numbers differ.
    """
    if same_maps and student.shape[1] != teacher.shape[1]:
        raise UserError(
            f"the teacher has {teacher.shape[1]} maps, the student {student.shape[1]}; train both on one data set"
        )
    student, teacher = at_least_float32(student), at_least_float32(teacher.detach())
    if student.shape[-2:] != teacher.shape[-2:]:
        student = F.interpolate(student, teacher.shape[-2:], mode="bilinear", align_corners=False)
    return student, teacher


def weighted_kl(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """KL(teacher ‖ student) of softmax distributions over the last axis, in which each position counts by its weight.

    The distributions are p_i ∝ weight_i · exp(score_i): repeating all positions does not change the divergence, and a
    position of weight 0 has no influence.

    Args:
        student: scores, float32 or float64 …×M.
        teacher: scores of the same shape, without gradient.
        weight: ≥ 0, of a shape that broadcasts to …×M.

    Returns:
        Nats, of the shape …; 0, with zero gradient, where no position has weight.
    """
    # not -inf: 0 · (-inf - -inf) would be NaN, and a softmax over nothing has no value
    nothing = torch.finfo(student.dtype).min / 2
    log_q, log_p = (
        F.log_softmax(torch.where(weight > 0, scores + weight.log(), nothing), dim=-1)
        for scores in (student, teacher)
    )
    return (log_p.exp() * (log_p - log_q)).sum(-1)
