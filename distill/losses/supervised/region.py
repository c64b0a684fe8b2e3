"""Losses of the overlap of regions: Dice, generalized Dice, Tversky.

They compare whole regions, so they are taken in each image over the classes that its valid labels hold; images then
weigh by their valid pixels. Thus a batch can be divided into micro-batches and processes, and the loss stays the same.
With `per_image=0` the regions are those of all images that a process sees at once, and it does not.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.losses.common import at_size_of, members, weighted_mean


class Regions(NamedTuple):
    """What is predicted and what is true of B images (or of one, made of the whole batch) of P pixels."""

    logits: Tensor
    """Floating B×K×P."""
    truth: Tensor
    """bool B×K×P; False where not valid."""
    valid: Tensor
    """bool B×P."""

    @property
    def probability(self) -> Tensor:
        """Softmax over classes, B×K×P; 0 where not valid."""
        return F.softmax(self.logits, dim=1) * self.valid.unsqueeze(1)


def regions_of(logits: Tensor, label: Tensor, valid: Tensor, per_image: int = 1) -> Regions:
    """The regions of each image, or of the whole batch as one image; logits are upsampled bilinearly to the label.

    Args:
        logits: N×K×h×w.
        label: N×H×W int64, any value where not valid.
        valid: N×H×W bool.
        per_image: 1 or 0.
    """
    logits = at_size_of(label, logits)
    maps = (logits, members(label, valid, logits.shape[1]), valid.unsqueeze(1))
    if per_image:
        logits, truth, valid = (x.flatten(2) for x in maps)
    else:
        logits, truth, valid = (x.transpose(0, 1).flatten(1).unsqueeze(0) for x in maps)
    return Regions(logits, truth, valid.squeeze(1))


def mean_over_classes(losses: Tensor, regions: Regions, class_weights: Tensor | None) -> Tensor:
    """Mean of losses B×K over the classes of each image, then over images, which weigh by their valid pixels."""
    weight = regions.truth.any(2).to(losses)
    if class_weights is not None:
        weight = weight * class_weights.to(losses)
    total = weight.sum(1)
    losses = (losses * weight).sum(1) / torch.where(total > 0, total, 1)
    return weighted_mean(losses, regions.valid.sum(1).to(losses))


def dice(
    logits: Tensor,
    label: Tensor,
    valid: Tensor,
    class_weights: Tensor | None = None,
    *,
    p: float = 1.0,
    per_image: int = 1,
) -> Tensor:
    """Soft Dice loss: 1 - 2·Σ p·g / (Σ p + Σ g), g the label's one-hot; mean over the classes of an image.

    Milletari et al. (V-Net, arXiv:1606.04797). The paper squares what it adds up in the denominator, which is `p=2`;
    plain sums are the form that Tversky generalizes. No smoothing term: only classes that are there count.

    Args:
        logits: N×K×h×w; upsampled bilinearly to the label, as the deployed graph does.
        label: N×H×W int64, any value where not valid.
        valid: N×H×W bool.
        class_weights: K positive weights of the classes in the mean.
        p: ≥ 1, exponent of probabilities in the denominator.
        per_image: 0 takes the regions of all images together.

    Returns:
        A scalar from 0 to 1; 0, with zero gradient, where no pixel is valid.
    """
    regions = regions_of(logits, label, valid, per_image)
    probability, size = regions.probability, regions.truth.sum(2)
    overlap = (probability * regions.truth).sum(2)
    both = (probability**p).sum(2) + size.clamp(min=1)
    return mean_over_classes(1 - 2 * overlap / both, regions, class_weights)


def tversky(
    logits: Tensor,
    label: Tensor,
    valid: Tensor,
    class_weights: Tensor | None = None,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    per_image: int = 1,
) -> Tensor:
    """Tversky loss: 1 - hit / (hit + α·false + β·missed), in probability; mean over the classes of an image.

    Salehi et al. (arXiv:1706.05721), who recommend the defaults: what is missed costs more than false alarms. With
    α = β = ½ it is `dice`, with α = β = 1 the soft Jaccard loss.

    Args:
        logits: N×K×h×w; upsampled bilinearly to the label, as the deployed graph does.
        label: N×H×W int64, any value where not valid.
        valid: N×H×W bool.
        class_weights: K positive weights of the classes in the mean.
        alpha: 0 to 1, cost of probability outside the region.
        beta: ≥ 0, cost of probability that is missing within.
        per_image: 0 takes the regions of all images together.

    Returns:
        A scalar from 0 to 1; 0, with zero gradient, where no pixel is valid.
    """
    regions = regions_of(logits, label, valid, per_image)
    probability = regions.probability
    hit = (probability * regions.truth).sum(2)
    false = probability.sum(2) - hit
    missed = regions.truth.sum(2) - hit
    # 0 only with β = 0 and a class that is predicted nowhere
    total = (hit + alpha * false + beta * missed).clamp(min=torch.finfo(hit.dtype).eps)
    return mean_over_classes(1 - hit / total, regions, class_weights)


def gdice(
    logits: Tensor,
    label: Tensor,
    valid: Tensor,
    class_weights: Tensor | None = None,
    *,
    per_image: int = 1,
) -> Tensor:
    """Generalized Dice loss: one Dice over all classes of an image, each weighing by 1 / (its pixels)².

    Sudre et al. (arXiv:1707.03237): 1 - 2·Σ_c w_c Σ p·g / Σ_c w_c Σ (p + g). Classes that the image has not weigh 0.

    Args:
        logits: N×K×h×w; upsampled bilinearly to the label, as the deployed graph does.
        label: N×H×W int64, any value where not valid.
        valid: N×H×W bool.
        class_weights: K positive weights, which multiply w.
        per_image: 0 takes the regions of all images together.

    Returns:
        A scalar from 0 to 1; 0, with zero gradient, where no pixel is valid.
    """
    regions = regions_of(logits, label, valid, per_image)
    probability = regions.probability
    size = regions.truth.sum(2).to(probability)
    weight = (size > 0) / size.clamp(min=1).square()
    if class_weights is not None:
        weight = weight * class_weights.to(weight)
    overlap = (weight * (probability * regions.truth).sum(2)).sum(1)
    both = (weight * (probability.sum(2) + size)).sum(1)
    loss = 1 - 2 * overlap / torch.where(both > 0, both, 1)
    return weighted_mean(loss, regions.valid.sum(1).to(loss))
