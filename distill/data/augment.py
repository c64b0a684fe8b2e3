"""Random augmentation of a training sample: zoom, crop, flips, and color jitter for optical images.

Image, label and masks are transformed together. Every random number comes from the
generator passed in, never from torch's global one, so a sample depends only on its key. This runs for every sample
while the network trains, so it makes few passes over the pixels and uses one thread.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch.nn import functional

from deploy.inference.preprocess import resize_nearest
from distill.config import AugmentConfig
from distill.data.crops import choose_window, clip_window
from distill.data.sample import IGNORE, Sample

GRAY = (0.2989, 0.587, 0.114)
"""Weights of R, G and B in gray, as in torchvision."""


def augment_sample(
    sample: Sample,
    config: AugmentConfig,
    rng: np.random.Generator,
    mean: Sequence[float],
    optical: bool,
    target_class: int | None = None,
) -> Sample:
    """A random variant of `sample`, exactly `config.crop` pixels in size.

    Args:
        sample: its image is uint8 or float32 C×H×W without NaN; uint8 of three channels is fastest when stored as
            H×W×C.
        config: strength of the changes; the zoom is relative to the size of `sample`.
        rng: source of all random numbers.
        mean: fills what the crop covers outside the image, per channel; there the label is 255 and valid is False.
        optical: the image is in 0..255; color jitter applies if it has three channels.
        target_class: a class that the crop should contain, if the sample has it.

    Returns:
        The variant; its image is float32 in the units of the sample.
    """
    window = choose_window(sample, config, rng, target_class)
    inside, place = clip_window(sample.label.shape[0], sample.label.shape[1], window, config.crop)
    size = (place[0].stop - place[0].start, place[1].stop - place[1].start)
    pixels = _resized(sample.image.numpy()[(slice(None), *inside)], size)
    if optical and pixels.shape[2] == 3 and config.photometric > 0:
        pixels = jitter_colors(pixels.astype(np.float32), config.photometric, rng)
    mirror = slice(None, None, -1 if config.flip and rng.random() < 0.5 else 1)
    turn = slice(None, None, -1 if config.vertical_flip and rng.random() < 0.5 else 1)
    image = np.empty((pixels.shape[2], *config.crop), np.float32)
    if size != config.crop:
        image[...] = np.asarray(mean, np.float32)[:, None, None]
    # Writing through flipped, transposed views places, flips, converts and reorders the pixels in one pass.
    image.transpose(1, 2, 0)[turn, mirror][place] = pixels

    def moved(plane: torch.Tensor, outside: int, dtype: type) -> torch.Tensor:
        """A plane H×W of the sample as it is in the crop."""
        crop = np.full(config.crop, outside, dtype)
        crop[turn, mirror][place] = resize_nearest(plane.numpy()[inside], *size)
        return torch.from_numpy(crop)

    label = moved(sample.label, IGNORE, np.int64)
    if sample.unlabeled is None:
        return Sample(torch.from_numpy(image), label, label != IGNORE, sample.id)
    valid, unlabeled = (moved(mask, False, np.bool_) for mask in (sample.valid, sample.unlabeled))
    return Sample(torch.from_numpy(image), label, valid, sample.id, unlabeled)


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """C×H×W resized to H×W×C of that size: bilinear, antialiased, pixel centers at half positions."""
    pixels = image.transpose(1, 2, 0)
    if pixels.shape[:2] == size:
        return pixels
    if image.dtype == np.uint8:  # torch has a faster kernel for channels that are contiguous in memory
        pixels = np.ascontiguousarray(pixels)
    planes = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
    resized = functional.interpolate(planes, size, mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def jitter_colors(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Change brightness, contrast and saturation, in random order, each by a factor in 1 ± `strength`.

    Up to rounding, this is torchvision's ColorJitter with random numbers from `rng`. OpenCV does the small matrix
    products, because BLAS may start threads that compete with the training.

    Args:
        image: float32 H×W×3 in 0..255.
        strength: 0..1.
        rng: source of all random numbers.

    Returns:
        The changed image, of the same type and range.
    """
    changes = (_brightness, _contrast, _saturation)
    low = max(0.0, 1 - strength)
    for number in rng.permutation(len(changes)):
        image = changes[number](image, float(rng.uniform(low, 1 + strength)))
        np.clip(image, 0, 255, out=image)
    return image


def _brightness(image: np.ndarray, factor: float) -> np.ndarray:
    return image * np.float32(factor)


def _contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Blend with the mean gray, which is the gray of the mean color."""
    gray = np.dot(GRAY, cv2.mean(image)[:3])
    changed = image * np.float32(factor)
    changed += np.float32((1 - factor) * gray)
    return changed


def _saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Blend with the gray of each pixel."""
    return cv2.transform(image, factor * np.eye(3) + (1 - factor) * np.asarray(GRAY))
