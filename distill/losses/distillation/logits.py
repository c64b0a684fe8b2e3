"""Distillation losses on logits (see `distill.losses.distillation.common` for what they share).

An image without weight is one in which no pixel counts: all are void or without data.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.losses.distillation.common import Pixels, cell_weight, image_mean, pair, weighted_kl

LEAST_VARIANCE = 1e-10
"""Added to variances, because Pearson's correlation divides by a deviation that is 0 for constants. Probabilities that
vary by less than 1e-5, among classes or cells, count as constant: the gradient stays finite, and float32 rounding is
not taken for signal."""


def kl(student: Tensor, teacher: Tensor, pixels: Pixels, *, t: float = 1.0) -> Tensor:
    """Pixel-wise distillation: t² · KL(teacher ‖ student) over classes, mean over the pixels of an image.

    Hinton et al. (arXiv:1503.02531), applied to each pixel as in Liu et al. (CVPR 2019, arXiv:1903.04197). The
    teacher's entropy is subtracted, so the loss is 0 exactly where the two agree.

    Args:
        student: logits, floating N×K×h×w; resized bilinearly to the teacher's h×w if strides differ.
        teacher: logits, floating N×K×h×w; detached.
        pixels: labels and weights, at any size; a weight of 0 marks void and no data.
        t: softmax temperature > 0.

    Returns:
        N values ≥ 0 in nats, float32 or float64; 0, with zero gradient, for an image without weight.

    Raises:
        UserError: student and teacher have different numbers of classes.
    """
    divergence = _divergence(*pair(student, teacher), t)
    return image_mean(divergence, cell_weight(pixels, divergence.shape[-2:]).to(divergence))


def hard(student: Tensor, teacher: Tensor, pixels: Pixels) -> Tensor:
    """Hard labels of the teacher: cross-entropy against its most likely class, mean over the pixels of an image.

    As in pseudo-labeling (Lee, ICML 2013 workshop on challenges in representation learning) and noisy students (Xie et
    al., arXiv:1911.04252). It is `kl` for a teacher that is sure everywhere, so it is not 0 for a student that is its
    unsure teacher.

    Args:
        student: logits, floating N×K×h×w; resized bilinearly to the teacher's h×w if strides differ.
        teacher: logits, floating N×K×h×w; detached.
        pixels: labels and weights, at any size; a weight of 0 marks void and no data.

    Returns:
        N values ≥ 0 in nats, float32 or float64; 0, with zero gradient, for an image without weight.

    Raises:
        UserError: student and teacher have different numbers of classes.
    """
    student, teacher = pair(student, teacher)
    loss = F.cross_entropy(student, teacher.argmax(1), reduction="none")
    return image_mean(loss, cell_weight(pixels, loss.shape[-2:]).to(loss))


def cwd(student: Tensor, teacher: Tensor, pixels: Pixels, *, t: float = 4.0) -> Tensor:
    """Channel-wise distillation: t²/C · Σ_c KL(teacher ‖ student) over the positions of each map.

    Shu et al. (ICCV 2021, arXiv:2011.13256). Each map becomes a distribution over the image in which a cell counts by
    its weight w, p_i ∝ w_i · exp(x_i / t). It tells where a class or feature is, regardless of the level of its map.

    Args:
        student: logits or features, floating N×C×h×w; resized bilinearly to the teacher's h×w if strides differ.
        teacher: logits or features, floating N×C×h×w; detached.
        pixels: labels and weights, at any size; a weight of 0 marks void and no data.
        t: softmax temperature > 0.

    Returns:
        N values ≥ 0 in nats, float32 or float64; 0, with zero gradient, for an image without weight.

    Raises:
        UserError: student and teacher have different numbers of maps.
    """
    student, teacher = pair(student, teacher)
    weight = cell_weight(pixels, teacher.shape[-2:]).to(student).flatten(1)
    divergence = weighted_kl(student.flatten(2) / t, teacher.flatten(2) / t, weight[:, None])
    return t**2 * divergence.mean(1)


def mse(student: Tensor, teacher: Tensor, pixels: Pixels) -> Tensor:
    """Mean squared difference over maps and the pixels of an image (Ba & Caruana, arXiv:1312.6184, on logits).

    Args:
        student: logits or features, floating N×C×h×w; resized bilinearly to the teacher's h×w if strides differ.
        teacher: logits or features, floating N×C×h×w; detached.
        pixels: labels and weights, at any size; a weight of 0 marks void and no data.

    Returns:
        N values ≥ 0, float32 or float64; 0, with zero gradient, for an image without weight.

    Raises:
        UserError: student and teacher have different numbers of maps.
    """
    student, teacher = pair(student, teacher)
    difference = (student - teacher).square().mean(1)
    return image_mean(difference, cell_weight(pixels, difference.shape[-2:]).to(difference))


def dist(
    student: Tensor,
    teacher: Tensor,
    pixels: Pixels,
    *,
    t: float = 1.0,
    inter: float = 1.0,
    intra: float = 1.0,
) -> Tensor:
    """DIST: t² · (inter · (1 - r over classes) + intra · (1 - r over pixels)), r Pearson's correlation.

    Huang et al. (NeurIPS 2022, arXiv:2205.10536), on softmax probabilities. `inter` correlates the classes at each
    pixel, mean over the pixels of an image; `intra` correlates the weighted pixels of the image for each class, mean
    over classes. No image is compared with another. 1 - r is computed as half the squared difference of standardized
    values, which is equal and stays finite for constants: it is 0 for two constants, ½ for a constant and a map that
    varies.

    Args:
        student: logits, floating N×K×h×w; resized bilinearly to the teacher's h×w if strides differ.
        teacher: logits, floating N×K×h×w; detached.
        pixels: labels and weights, at any size; a weight of 0 marks void and no data.
        t: softmax temperature > 0.
        inter: weight ≥ 0 of the correlation over classes.
        intra: weight ≥ 0 of the correlation over pixels.

    Returns:
        N values from 0 to 2t²·(inter + intra), float32 or float64; 0, with zero gradient, for an image without weight.

    Raises:
        UserError: student and teacher have different numbers of classes.
    """
    student, teacher = pair(student, teacher)
    weight = cell_weight(pixels, teacher.shape[-2:]).to(student)
    q, p = (F.softmax(logits / t, dim=1) for logits in (student, teacher))

    def over_classes(x: Tensor) -> Tensor:
        return x.mean(1, keepdim=True)

    def over_cells(x: Tensor) -> Tensor:
        return image_mean(x.flatten(0, 1), weight.repeat_interleave(x.shape[1], 0)).view(*x.shape[:2], 1, 1)

    total = 0.5 * inter * (_standardized(q, over_classes) - _standardized(p, over_classes)).square().mean(1)
    total = total + 0.5 * intra * (_standardized(q, over_cells) - _standardized(p, over_cells)).square().mean(
        1
    )
    return t**2 * image_mean(total, weight)


def boundary(
    student: Tensor,
    teacher: Tensor,
    pixels: Pixels,
    *,
    t: float = 1.0,
    radius: int = 3,
    edge: float = 0.5,
) -> Tensor:
    """Boundary-aware distillation: `edge` · mean `kl` of pixels at label boundaries + (1 - `edge`) · that of the rest.

    After the separate edge and body terms of BPKD (Liu et al., arXiv:2306.08075). A pixel is at a boundary if a valid
    pixel of another class is at most `radius` pixels away (see `near_boundary`); a cell counts in both parts, by the
    weight of its pixels in each. If an image has pixels in one part only, that part counts alone.

    Tiling an image changes the loss only if it adds boundaries: where opposite sides of the image have different
    classes, the seams are new boundaries.

    Args:
        student: logits, floating N×K×h×w; resized bilinearly to the teacher's h×w if strides differ.
        teacher: logits, floating N×K×h×w; detached.
        pixels: labels and weights, at any size; a weight of 0 marks void and no data.
        t: softmax temperature > 0.
        radius: in pixels of the label, ≥ 1.
        edge: weight of the boundary, 0 to 1.

    Returns:
        N values ≥ 0 in nats, float32 or float64; 0, with zero gradient, for an image without weight.

    Raises:
        UserError: student and teacher have different numbers of classes.
    """
    divergence = _divergence(*pair(student, teacher), t)
    at_edge = near_boundary(pixels.label, pixels.weight > 0, radius)
    total, means = [], []
    for part in (at_edge, ~at_edge):
        of_part = Pixels(pixels.weight * part, pixels.label, pixels.num_classes)
        weight = cell_weight(of_part, divergence.shape[-2:]).to(divergence)
        total.append(weight.flatten(1).sum(1))
        means.append(image_mean(divergence, weight))
    share = torch.full_like(means[0], edge)
    share = torch.where(total[0] > 0, torch.where(total[1] > 0, share, 1.0), 0.0)
    return share * means[0] + (1 - share) * means[1]


def near_boundary(label: Tensor, valid: Tensor, radius: int) -> Tensor:
    """Find the valid pixels that have a valid pixel of another class in the square of ±radius around them.

    Neither the border of the image nor the edge of void is a boundary.

    Args:
        label: int64 N×H×W, any value where not valid.
        valid: bool N×H×W.
        radius: in pixels, ≥ 1.

    Returns:
        bool N×H×W.
    """
    ids = label.float()  # exact up to 2^24 classes

    def highest(x: Tensor) -> Tensor:
        # the maximum over a square is separable; padding is -inf
        for kernel in ((2 * radius + 1, 1), (1, 2 * radius + 1)):
            x = F.max_pool2d(x, kernel, stride=1, padding=(kernel[0] // 2, kernel[1] // 2))
        return x

    top = highest(torch.where(valid, ids, -torch.inf))
    bottom = -highest(torch.where(valid, -ids, -torch.inf))
    return valid & (top != bottom)


def _divergence(student: Tensor, teacher: Tensor, t: float) -> Tensor:
    """t² · KL(teacher ‖ student) over the classes of each cell: N×h×w."""
    log_q = F.log_softmax(student / t, dim=1)
    log_p = F.log_softmax(teacher / t, dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(1) * t**2


def _standardized(x: Tensor, mean: Callable[[Tensor], Tensor]) -> Tensor:
    """`x` with mean 0 and variance 1 over the axes that `mean` averages; 0 where it is constant."""
    centered = x - mean(x)
    return centered / (mean(centered.square()) + LEAST_VARIANCE).sqrt()
