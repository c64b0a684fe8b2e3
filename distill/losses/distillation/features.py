"""Distillation losses on feature maps (see `distill.losses.distillation.common` for what they share).

An image without weight is one in which no pixel counts: all are void or without data.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.losses.distillation.common import Pixels, cell_weight, class_weight, image_mean, pair
from distill.losses.distillation.logits import mse

LEAST_SQUARED_NORM = 1e-8
"""Added to squared norms: bounds the gradient of a cell whose features are all 0, far below usual features."""
LEAST_ENERGY = 1e-12
"""Added to the mean square of attention maps: bounds the gradient of an image whose features are all 0."""


def feature(student: Tensor, teacher: Tensor, pixels: Pixels) -> Tensor:
    """FitNets' hint loss: mean squared difference over channels and the pixels of an image.

    Romero et al. (arXiv:1412.6550).

    Args:
        student: features, floating N×C×h×w, mapped to the teacher's channels; resized to its h×w if strides differ.
        teacher: features, floating N×C×h×w; detached.
        pixels: labels and weights, at any size; a weight of 0 marks void and no data.

    Returns:
        N values ≥ 0, float32 or float64; 0, with zero gradient, for an image without weight.

    Raises:
        UserError: student and teacher have different numbers of channels.
    """
    return mse(student, teacher, pixels)


def cosine(student: Tensor, teacher: Tensor, pixels: Pixels) -> Tensor:
    """One minus the cosine of the angle between the features of a cell, mean over the pixels of an image.

    As AM-RADIO (Ranzinger et al., CVPR 2024, arXiv:2312.06709) compares maps: unlike a squared difference, it does not
    depend on the scale of the teacher's features. Computed as half the squared difference of unit vectors, which is
    equal and exactly 0 where the two agree.

    Args:
        student: features, floating N×C×h×w, mapped to the teacher's channels; resized to its h×w if strides differ.
        teacher: features, floating N×C×h×w; detached.
        pixels: labels and weights, at any size; a weight of 0 marks void and no data.

    Returns:
        N values from 0 to 2, float32 or float64; 0, with zero gradient, for an image without weight.

    Raises:
        UserError: student and teacher have different numbers of channels.
    """
    student, teacher = pair(student, teacher)
    difference = 0.5 * (unit(student) - unit(teacher)).square().sum(1)
    return image_mean(difference, cell_weight(pixels, difference.shape[-2:]).to(difference))


def attention(student: Tensor, teacher: Tensor, pixels: Pixels, *, p: float = 2.0, mean: int = 0) -> Tensor:
    """Attention transfer: squared L2 distance between the L2-normalized maps of mean_c |x_c|^p.

    Zagoruyko & Komodakis (arXiv:1612.03928); cells count by their weight in both the norm and the distance. The
    authors' code takes the mean over the h·w cells where this is their sum: their weights are h·w times larger.

    Args:
        student: features, floating N×C×h×w; resized bilinearly to the teacher's h×w if strides differ.
        teacher: features, floating N×D×h×w; detached. D may differ from C.
        pixels: labels and weights, at any size; a weight of 0 marks void and no data.
        p: exponent ≥ 1.
        mean: 1 = divided by h·w, for the weights of the authors' code.

    Returns:
        N values from 0 to 2, divided if `mean`, float32 or float64; 0, with zero gradient, for an image without weight.
    """
    student, teacher = pair(student, teacher, same_maps=False)
    weight = cell_weight(pixels, teacher.shape[-2:]).to(student)
    q, r = (_attention_map(features, weight, p) for features in (student, teacher))
    distance = image_mean((q - r).square(), weight)
    return distance / weight[0].numel() if mean else distance


def pairwise(student: Tensor, teacher: Tensor, pixels: Pixels, *, pool: int = 2, maximum: int = 0) -> Tensor:
    """Structured distillation: mean squared difference between the cosine similarities of all pairs of pooled cells.

    Liu et al. (CVPR 2019, arXiv:1903.04197). Cells are averaged by weight over blocks of pool×pool cells, smaller at
    the far edges, and a pair counts by the product of the weights of its two blocks. Memory grows as (h·w / pool²)².
    The authors' code takes the largest value of a block instead of the mean, in blocks of half the map's sides.

    Args:
        student: features, floating N×C×h×w; resized bilinearly to the teacher's h×w if strides differ.
        teacher: features, floating N×D×h×w; detached. D may differ from C.
        pixels: labels and weights, at any size; a weight of 0 marks void and no data.
        pool: side of a block, in cells, ≥ 1.
        maximum: 1 = a block is the largest value of its cells with weight, by channel, as in the authors' code.

    Returns:
        N values from 0 to 4, float32 or float64; 0, with zero gradient, for an image without weight.
    """
    student, teacher = pair(student, teacher, same_maps=False)
    weight = cell_weight(pixels, teacher.shape[-2:]).to(student).unsqueeze(1)
    total = _block_sum(weight, pool)
    similar = []
    for features in (student, teacher):
        if maximum:
            blocks = _block_maximum(features, weight, pool)
        else:
            blocks = _block_sum(features * weight, pool) / total.where(total > 0, 1)
        cells = unit(blocks.flatten(2))
        similar.append(cells.mT @ cells)
    each = total.flatten(1)
    return image_mean((similar[0] - similar[1]).square(), each.unsqueeze(1) * each.unsqueeze(2))


def ifvd(student: Tensor, teacher: Tensor, pixels: Pixels) -> Tensor:
    """Intra-class feature variation: squared difference of each cell's cosine to the mean feature of its class.

    Wang et al. (ECCV 2020). The class means are those of the image; the student's are computed from its own features. A
    cell that covers several classes belongs to each by the weight of its pixels; absent classes have no influence.

    Args:
        student: features, floating N×C×h×w; resized bilinearly to the teacher's h×w if strides differ.
        teacher: features, floating N×D×h×w; detached. D may differ from C.
        pixels: labels and weights, at any size; a weight of 0 marks void and no data.

    Returns:
        N values from 0 to 4, float32 or float64; 0, with zero gradient, for an image without weight.
    """
    student, teacher = pair(student, teacher, same_maps=False)
    member = class_weight(pixels, teacher.shape[-2:]).to(student).flatten(2)
    variation = [class_means(features, member) @ unit(features.flatten(2)) for features in (student, teacher)]
    return image_mean((variation[0] - variation[1]).square(), member)


def class_means(features: Tensor, member: Tensor) -> Tensor:
    """Mean feature of each class, scaled to length 1.

    Args:
        features: N×C×h×w.
        member: weights N×K×(h·w) of the cells in each class.

    Returns:
        N×K×C; 0 for a class that is absent.
    """
    total = member.sum(2, keepdim=True)
    return unit(member @ features.flatten(2).mT / total.where(total > 0, 1), dim=2)


def unit(x: Tensor, dim: int = 1) -> Tensor:
    """Scale the vectors along `dim` to length 1; zero vectors stay 0, with finite gradient."""
    return x / (x.square().sum(dim, keepdim=True) + LEAST_SQUARED_NORM).sqrt()


def _attention_map(features: Tensor, weight: Tensor, p: float) -> Tensor:
    """Mean |x|^p over channels, N×h×w, scaled to a weighted mean square of 1."""
    energy = features.abs().pow(p).mean(1)
    return energy / (image_mean(energy.square(), weight) + LEAST_ENERGY).sqrt()[:, None, None]


def _block_sum(x: Tensor, side: int) -> Tensor:
    return F.avg_pool2d(x, side, ceil_mode=True, divisor_override=1)


def _block_maximum(x: Tensor, weight: Tensor, side: int) -> Tensor:
    """Largest value of the cells with weight of each block; 0 in a block without any."""
    largest = F.max_pool2d(x.where(weight > 0, -torch.inf), side, ceil_mode=True)
    return largest.where(largest > -torch.inf, 0)
