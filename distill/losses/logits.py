"""Distillation losses on logits (see `distill.losses.pixels` for what they share)."""

from torch import Tensor
from torch.nn import functional as F

from distill.losses.pixels import Pixels, cell_weight, image_mean, same_size
from distill.losses.task import at_least_float32


def kl(student: Tensor, teacher: Tensor, pixels: Pixels, *, t: float = 1.0) -> Tensor:
    """Pixel-wise distillation: t² · KL(teacher ‖ student) over classes, mean over the pixels of an image.

    Hinton et al. (arXiv:1503.02531) applied to each pixel as in Liu et al. (CVPR 2019, arXiv:1903.04197). The teacher's
    entropy is kept, so the loss is 0 exactly where the two agree.

    Args:
        student: logits N×K×h×w; resized bilinearly to the teacher's h×w where strides differ.
        teacher: logits N×K×h×w, detached here.
        pixels: labels and weights, at any size.
        t: softmax temperature > 0.

    Returns:
        N values in nats, ≥ 0; 0, with zero gradient, for an image without weight.

    Raises:
        UserError: the two have different numbers of classes.
    """
    student = same_size(student, teacher)
    log_q = F.log_softmax(at_least_float32(student) / t, dim=1)
    log_p = F.log_softmax(at_least_float32(teacher.detach()) / t, dim=1)
    divergence = (log_p.exp() * (log_p - log_q)).sum(1) * t**2
    return image_mean(divergence, cell_weight(pixels, divergence.shape[-2:]).to(divergence))
