"""Weights of classes by their numbers of training pixels. Only ratios matter, because losses are weighted means."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def class_weights_of(kind: str, values: Sequence[float], class_pixels: Sequence[int]) -> Tensor | None:
    """Compute the class weights of a training.

    Args:
        kind: `none`, `log`, `inverse` or `effective`, as in `LossConfig.class_weights`.
        values: K weights > 0 to use unchanged; empty to compute them by `kind`.
        class_pixels: number of valid training pixels of each class.

    Returns:
        float32 of length K; None if all classes weigh alike.
    """
    if values:
        return torch.tensor(values, dtype=torch.float32)
    if kind == "none":
        return None
    rules = {"log": log_frequency_weights, "inverse": inverse_weights, "effective": effective_weights}
    return rules[kind](class_pixels)


def log_frequency_weights(class_pixels: Sequence[int]) -> Tensor:
    """Class weights `1 / ln(1.02 + frequency)` of ENet (Paszke et al., arXiv:1606.02147), float32 of length K.

    They range from 1.4 (all pixels are of the class) to 50.5 (none is).
    """
    frequency = np.asarray(class_pixels, np.float64) / max(1, sum(class_pixels))
    return torch.tensor(1.0 / np.log(1.02 + frequency), dtype=torch.float32)


def inverse_weights(class_pixels: Sequence[int]) -> Tensor:
    """Class weights `1 / pixels`, float32 of length K, scaled to a mean of 1 over the classes that occur.

    A class that never occurs weighs 1. Every class has the same total weight, however rare it is, so each pixel of a
    very rare class weighs very much.
    """
    return _mean_one(np.asarray(class_pixels, np.float64), class_pixels)


def effective_weights(class_pixels: Sequence[int]) -> Tensor:
    """Class weights `(1 - β) / (1 - β^pixels)`, by effective number of samples (Cui et al., arXiv:1901.05555).

    β = (N - 1) / N, where N, the paper's number of distinct samples, is the mean number of pixels per class, so the
    weights do not depend on the number of images. Rare classes weigh by inverse frequency; frequent ones (well over N
    pixels) weigh alike. Float32 of length K, scaled to a mean of 1 over the classes that occur; a class that never
    occurs weighs 1.
    """
    pixels = np.asarray(class_pixels, np.float64)
    volume = max(2.0, pixels.mean())  # with one distinct sample, β = 0 has no logarithm
    return _mean_one(-volume * np.expm1(pixels * np.log1p(-1 / volume)), class_pixels)


def _mean_one(amount: np.ndarray, class_pixels: Sequence[int]) -> Tensor:
    """Inverse of each class's amount, divided by the mean inverse of classes that occur; 1 for those that do not."""
    occurs = np.asarray(class_pixels) > 0
    weights = 1 / np.where(occurs, amount, 1)
    return torch.tensor(
        np.where(occurs, weights / weights[occurs].mean(), 1) if occurs.any() else weights
    ).float()
