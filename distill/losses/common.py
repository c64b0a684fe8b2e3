"""Cross-entropy, and what losses share: means over weights, precision, sizes, class masks."""

import torch
from torch import Tensor
from torch.nn import functional as F


def cross_entropy(
    logits: Tensor, label: Tensor, valid: Tensor, class_weights: Tensor | None = None
) -> Tensor:
    """Mean cross-entropy over valid pixels.

    Args:
        logits: floating N×K×h×w; upsampled bilinearly to the label, as the deployed graph does.
        label: N×H×W int64, any value where not valid.
        valid: N×H×W bool, False for void, no data and padding.
        class_weights: floating, K positive weights; the mean is then weighted as in `torch.nn.CrossEntropyLoss`.

    Returns:
        A scalar in nats, float32 or float64; 0, with zero gradient, if no pixel is valid.
    """
    target = torch.where(valid, label, 0)
    loss = F.cross_entropy(at_size_of(label, logits), target, reduction="none")
    weight = valid.to(loss) if class_weights is None else valid * class_weights.to(loss)[target]
    return weighted_mean(loss, weight)


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Σ weight·values / Σ weight over all elements; 0, with zero gradient, if all weights are 0."""
    total = weight.sum()
    return (values * weight).sum() / torch.where(total > 0, total, 1)


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision as float32, whose range a sum of exponentials needs; float64 stays, for gradient checks."""
    return x if x.dtype == torch.float64 else x.float()


def at_size_of(label: Tensor, maps: Tensor) -> Tensor:
    """Resize maps N×C×h×w bilinearly to the …×H×W of what they are compared with, in float32 or float64."""
    maps = at_least_float32(maps)
    if maps.shape[-2:] == label.shape[-2:]:
        return maps
    # The small maps are cast and laid out class by class, as losses read them, and not the large ones.
    return F.interpolate(maps.contiguous(), label.shape[-2:], mode="bilinear", align_corners=False)


def members(label: Tensor, valid: Tensor, num_classes: int) -> Tensor:
    """Masks of the valid pixels of each class: bool N×K×H×W, from labels int64 N×H×W and `valid` bool N×H×W."""
    classes = torch.arange(num_classes, device=label.device)[:, None, None]
    return (label.unsqueeze(1) == classes) & valid.unsqueeze(1)
