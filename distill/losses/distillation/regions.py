"""A distillation loss on the overlap of regions, in which a small class counts as much as a large one."""

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.losses.distillation.common import Pixels, cell_weight, pair


def jaccard(student: Tensor, teacher: Tensor, pixels: Pixels) -> Tensor:
    """Jaccard metric loss: 1 - Σ min(p, q) / Σ max(p, q) over the pixels of an image, mean over the teacher's classes.

    Wang et al. (NeurIPS 2023, arXiv:2302.05666), their first form, which is a metric for soft labels too: with
    |p| + |q| ± |p - q| it is 0 exactly where student q and teacher p agree. The classes are those that the teacher sees
    in the image, the most likely ones of its pixels. `kl` is a mean over pixels and so learns mostly from the large
    classes; this one weighs classes alike, as the mean IoU does.

    Args:
        student: logits, floating N×K×h×w; resized bilinearly to the teacher's h×w if strides differ.
        teacher: logits, floating N×K×h×w; detached.
        pixels: labels and weights, at any size; a weight of 0 marks void and no data.

    Returns:
        N values from 0 to 1, float32 or float64; 0, with zero gradient, for an image without weight.

    Raises:
        UserError: student and teacher have different numbers of classes.
    """
    student, teacher = pair(student, teacher)
    weight = cell_weight(pixels, teacher.shape[-2:]).to(student).unsqueeze(1)
    q, p = F.softmax(student, dim=1), F.softmax(teacher, dim=1)
    both, apart = (((maps * weight).flatten(2).sum(2)) for maps in (p + q, (p - q).abs()))
    seen = F.one_hot(teacher.argmax(1), teacher.shape[1]).movedim(-1, 1) * (weight > 0)
    present = seen.flatten(2).any(2).to(both)
    loss = 1 - (both - apart) / (both + apart).clamp(min=torch.finfo(both.dtype).tiny)
    return (loss * present).sum(1) / present.sum(1).clamp(min=1)
