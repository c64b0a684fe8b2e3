"""Losses of a student against its teacher."""

import torch
from torch import Tensor
from torch.nn import functional as F

from deploy.errors import UserError
from distill.losses.task import at_least_float32, weighted_mean


def pixelwise_kl(student: Tensor, teacher: Tensor, valid: Tensor, tau: float = 1.0) -> Tensor:
    """Pixel-wise distillation: τ² · KL(teacher ‖ student) over classes, mean per valid pixel.

    Hinton et al. (arXiv:1503.02531) applied to each pixel as in Liu et al. (CVPR 2019, arXiv:1903.04197). The teacher's
    entropy is kept, so the loss is 0 exactly where the two agree; being a mean over pixels it does not depend on H·W.

    Args:
        student: logits N×K×h×w; resized bilinearly to the teacher's h×w where strides differ.
        teacher: logits N×K×h×w, detached here.
        valid: N×H×W bool at any size; a cell of the logits counts by the share of its pixels that are valid.
        tau: softmax temperature > 0.

    Returns:
        A scalar in nats, ≥ 0; 0, with zero gradient, where no pixel is valid.

    Raises:
        UserError: the two have different numbers of classes.
    """
    if student.shape[1] != teacher.shape[1]:
        raise UserError(
            f"the teacher has {teacher.shape[1]} classes, the student {student.shape[1]}; train both on one data set"
        )
    if student.shape[-2:] != teacher.shape[-2:]:
        student = F.interpolate(student, teacher.shape[-2:], mode="bilinear", align_corners=False)
    log_q = F.log_softmax(at_least_float32(student) / tau, dim=1)
    log_p = F.log_softmax(at_least_float32(teacher.detach()) / tau, dim=1)
    divergence = (log_p.exp() * (log_p - log_q)).sum(1) * tau**2
    return weighted_mean(divergence, valid_share(valid, divergence.shape[-2:]).to(divergence))


def valid_share(valid: Tensor, size: torch.Size) -> Tensor:
    """Share of valid pixels in each cell of a coarser grid: bool N×H×W → float32 N×h×w in 0..1."""
    if valid.shape[-2:] == size:
        return valid.float()
    return F.interpolate(valid.float().unsqueeze(1), size, mode="area").squeeze(1)
