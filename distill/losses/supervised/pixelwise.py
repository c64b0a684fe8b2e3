"""Losses of single pixels against their labels; `distill.losses.common.cross_entropy` is another."""

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.losses.common import at_size_of, members, weighted_mean


def balanced_ce(logits: Tensor, label: Tensor, valid: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Cross-entropy in which all classes of the batch weigh alike: mean over classes of the mean over their pixels.

    This is cross-entropy weighted by the inverse frequency of each class among the batch's valid pixels. The batch is
    what one process sees at once, so the loss depends on how a batch is divided into micro-batches and processes.

    Args:
        logits: floating N×K×h×w; upsampled bilinearly to the label, as the deployed graph does.
        label: N×H×W int64, any value where not valid.
        valid: N×H×W bool, False for void, no data and padding.
        class_weights: floating, K positive weights of the classes in the mean.

    Returns:
        A scalar in nats, float32 or float64; 0, with zero gradient, if no pixel is valid.
    """
    logits = at_size_of(label, logits)
    target = torch.where(valid, label, 0)
    pixels = members(label, valid, logits.shape[1]).sum((0, 2, 3))
    weights = (1.0 if class_weights is None else class_weights.to(logits)) / pixels.clamp(min=1)
    loss = F.cross_entropy(logits, target, reduction="none")
    return weighted_mean(loss, valid * weights.to(loss)[target])


def focal(
    logits: Tensor,
    label: Tensor,
    valid: Tensor,
    class_weights: Tensor | None = None,
    *,
    gamma: float = 2.0,
    alpha: float = 0.5,
) -> Tensor:
    """Focal loss: (1 - p)^γ · cross-entropy, p the softmax probability of the label; mean over valid pixels.

    Lin et al. (arXiv:1708.02002), with softmax in place of the paper's sigmoids. With γ = 0 it is cross-entropy.

    Args:
        logits: floating N×K×h×w; upsampled bilinearly to the label, as the deployed graph does.
        label: N×H×W int64, any value where not valid.
        valid: N×H×W bool, False for void, no data and padding.
        class_weights: floating, K positive weights; the mean is then weighted as in `cross_entropy`.
        gamma: ≥ 0; the higher, the less pixels count that are already right.
        alpha: 0 to 1, weight in the mean of all classes but class 0, the background, which weighs 1 - `alpha`. Only the
            ratio matters: at 0.5 all classes weigh alike.

    Returns:
        A scalar in nats, float32 or float64; 0, with zero gradient, if no pixel is valid.
    """
    target = torch.where(valid, label, 0)
    log_p = -F.cross_entropy(at_size_of(label, logits), target, reduction="none")
    # 1 - p without cancellation; never 0, where a power below 1 has no derivative
    wrong = (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).tiny)
    weight = valid.to(log_p) if class_weights is None else valid * class_weights.to(log_p)[target]
    weight = weight * torch.where(target > 0, alpha, 1 - alpha)
    return weighted_mean(-(wrong**gamma) * log_p, weight)
