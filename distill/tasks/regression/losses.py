"""Losses of a map of numbers against its target, both standardized: errors are in standard deviations of the target.

Every image weighs by its valid pixels, so the loss does not depend on how a batch is divided.
"""

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional as F

from distill.losses.common import at_size_of, weighted_mean
from distill.losses.registry import Loss


def smooth_l1(maps: Tensor, target: Tensor, valid: Tensor, *, beta: float = 1.0) -> Tensor:
    """Smooth L1, quadratic below `beta` and linear above (Girshick, ICCV 2015, arXiv:1504.08083).

    Args:
        maps: N×1×h×w; upsampled bilinearly to the target.
        target: N×H×W floating, any value where not valid.
        valid: N×H×W bool.
        beta: ≥ 0; 0 is plain L1.

    Returns:
        A scalar ≥ 0, the mean over valid pixels; 0, with zero gradient, where no pixel is valid.
    """
    predicted, target = _compared(maps, target, valid)
    loss = F.smooth_l1_loss(predicted, target, reduction="none", beta=beta)
    return weighted_mean(loss, valid.to(loss))


def l1(maps: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Absolute error; arguments and value as of `smooth_l1`."""
    return smooth_l1(maps, target, valid, beta=0.0)


def mse(maps: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Squared error; arguments and value as of `smooth_l1`."""
    predicted, target = _compared(maps, target, valid)
    loss = (predicted - target).square()
    return weighted_mean(loss, valid.to(loss))


LOSSES: Mapping[str, Loss] = {
    "smooth_l1": Loss(smooth_l1, on="logits"),
    "l1": Loss(l1, on="logits"),
    "mse": Loss(mse, on="logits"),
}
"""`(maps, target, valid, **options) -> scalar`."""


def _compared(maps: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Both N×H×W, in at least float32, the target 0 where not valid."""
    predicted = at_size_of(target, maps)[:, 0]
    return predicted, target.to(predicted).where(valid, 0)
