"""Losses of the overlap of regions: Dice, generalized Dice, Tversky.

They compare whole regions: in each image, over the classes that its valid labels contain. Images then weigh by their
valid pixels, so the loss does not depend on how a batch is divided into micro-batches and processes. With `per_image=0`
the regions are those of all images that one process sees at once, and the loss does depend on it.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.losses.common import at_size_of, members, weighted_mean


class Regions(NamedTuple):
    """Predicted and true regions of B images of P pixels; with `per_image=0`, B is 1 and the batch is one image."""

    logits: Tensor
    """Floating B×K×P."""
    truth: Tensor
    """bool B×K×P; False where not valid."""
    valid: Tensor
    """bool B×P."""

    @property
    def probability(self) -> Tensor:
        """Softmax over classes, B×K×P; 0 where not valid."""
        return F.softmax(self.logits, dim=1) * self.valid.unsqueeze(1).to(self.logits)

    def hit(self, probability: Tensor) -> Tensor:
        """Σ of the probability inside each true region, B×K."""
        return (probability * self.truth.to(probability)).sum(2)


def regions_of(logits: Tensor, label: Tensor, valid: Tensor, per_image: int = 1) -> Regions:
    """Collect the regions of each image, or of the whole batch as one image.

    Args:
        logits: floating N×K×h×w; upsampled bilinearly to the label.
        label: N×H×W int64, any value where not valid.
        valid: N×H×W bool, False for void, no data and padding.
        per_image: 1 for the regions of each image, 0 for those of the batch as one image.
    """
    logits = at_size_of(label, logits)
    maps = (logits, members(label, valid, logits.shape[1]), valid.unsqueeze(1))
    if per_image:
        logits, truth, valid = (x.flatten(2) for x in maps)
    else:
        logits, truth, valid = (x.transpose(0, 1).flatten(1).unsqueeze(0) for x in maps)
    return Regions(logits, truth, valid.squeeze(1))


def mean_over_classes(losses: Tensor, regions: Regions, class_weights: Tensor | None) -> Tensor:
    """Mean over the classes of each image, then over images, which weigh by their valid pixels.

    Args:
        losses: floating B×K, the loss of each class.
        regions: those that were compared.
        class_weights: floating, K positive weights of the classes in the mean; None weighs all alike.

    Returns:
        A scalar; 0, with zero gradient, if no pixel is valid.
    """
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

    Milletari et al. (V-Net, arXiv:1606.04797). The paper squares the terms of the denominator, which is `p=2` here;
    plain sums are the form that Tversky generalizes. There is no smoothing term: absent classes do not count.

    Args:
        logits: floating N×K×h×w; upsampled bilinearly to the label, as the deployed graph does.
        label: N×H×W int64, any value where not valid.
        valid: N×H×W bool, False for void, no data and padding.
        class_weights: floating, K positive weights of the classes in the mean.
        p: exponent ≥ 1 of the probabilities in the denominator.
        per_image: 1 computes the loss of each image, 0 that of all images taken as one.

    Returns:
        A scalar from 0 to 1, float32 or float64; 0, with zero gradient, if no pixel is valid.
    """
    regions = regions_of(logits, label, valid, per_image)
    probability, size = regions.probability, regions.truth.sum(2)
    both = (probability if p == 1 else probability**p).sum(2) + size.clamp(min=1)
    return mean_over_classes(1 - 2 * regions.hit(probability) / both, regions, class_weights)


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

    Salehi et al. (arXiv:1706.05721), who recommend the defaults, with which missed pixels cost more than false alarms.
    With α = β = ½ it is `dice`, with α = β = 1 the soft Jaccard loss.

    Args:
        logits: floating N×K×h×w; upsampled bilinearly to the label, as the deployed graph does.
        label: N×H×W int64, any value where not valid.
        valid: N×H×W bool, False for void, no data and padding.
        class_weights: floating, K positive weights of the classes in the mean.
        alpha: 0 to 1, cost of probability outside the region.
        beta: ≥ 0, cost of probability that is missing inside the region.
        per_image: 1 computes the loss of each image, 0 that of all images taken as one.

    Returns:
        A scalar from 0 to 1, float32 or float64; 0, with zero gradient, if no pixel is valid.
    """
    regions = regions_of(logits, label, valid, per_image)
    probability = regions.probability
    hit = regions.hit(probability)
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
    """Generalized Dice loss: one Dice over all classes of an image, each weighted by 1 / (its pixels)².

    Sudre et al. (arXiv:1707.03237): 1 - 2·Σ_c w_c Σ p·g / Σ_c w_c Σ (p + g). Classes absent from the image weigh 0.

    Args:
        logits: floating N×K×h×w; upsampled bilinearly to the label, as the deployed graph does.
        label: N×H×W int64, any value where not valid.
        valid: N×H×W bool, False for void, no data and padding.
        class_weights: floating, K positive factors of w.
        per_image: 1 computes the loss of each image, 0 that of all images taken as one.

    Returns:
        A scalar from 0 to 1, float32 or float64; 0, with zero gradient, if no pixel is valid.
    """
    regions = regions_of(logits, label, valid, per_image)
    probability = regions.probability
    size = regions.truth.sum(2).to(probability)
    weight = (size > 0) / size.clamp(min=1).square()
    if class_weights is not None:
        weight = weight * class_weights.to(weight)
    overlap = (weight * regions.hit(probability)).sum(1)
    both = (weight * (probability.sum(2) + size)).sum(1)
    loss = 1 - 2 * overlap / torch.where(both > 0, both, 1)
    return weighted_mean(loss, regions.valid.sum(1).to(loss))
