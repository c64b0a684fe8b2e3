"""Losses of a network against labels."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def cross_entropy(
    logits: Tensor, label: Tensor, valid: Tensor, class_weights: Tensor | None = None
) -> Tensor:
    """Mean cross-entropy over valid pixels.

    Args:
        logits: N×K×h×w; upsampled bilinearly to the label, as the deployed graph does.
        label: N×H×W int64, any value where not valid.
        valid: N×H×W bool.
        class_weights: K positive weights; the mean is then weighted as in `torch.nn.CrossEntropyLoss`.

    Returns:
        A scalar in nats; 0, with zero gradient, where no pixel is valid.
    """
    if logits.shape[-2:] != label.shape[-2:]:
        logits = F.interpolate(logits, label.shape[-2:], mode="bilinear", align_corners=False)
    target = torch.where(valid, label, 0)
    loss = F.cross_entropy(at_least_float32(logits), target, reduction="none")
    weight = valid.to(loss) if class_weights is None else valid * class_weights.to(loss)[target]
    return weighted_mean(loss, weight)


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Σ weight·values / Σ weight over all elements; 0, with zero gradient, where all weights are 0."""
    total = weight.sum()
    return (values * weight).sum() / torch.where(total > 0, total, 1)


def at_least_float32(x: Tensor) -> Tensor:
    """Half-precision logits as float32: a sum of exponentials needs the range; float64 stays, for gradient checks."""
    return x if x.dtype == torch.float64 else x.float()


def log_frequency_weights(class_pixels: tuple[int, ...]) -> Tensor:
    """Class weights `1 / ln(1.02 + frequency)` of ENet (Paszke et al., arXiv:1606.02147), float32 of length K.

    They span 1.4 (a class that is everywhere) to 50.5 (one that never occurs).
    """
    frequency = np.asarray(class_pixels, np.float64) / max(1, sum(class_pixels))
    return torch.tensor(1.0 / np.log(1.02 + frequency), dtype=torch.float32)
