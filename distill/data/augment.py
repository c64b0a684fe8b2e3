"""Random changes of a training sample: zoom, crop, flips, and colour jitter for optical images.

Image and label move together, and the valid mask follows from the label. Every random number comes from the generator
passed in, and never from torch's global one, so a sample depends on its own key alone. This runs beside the training
for every sample, so it takes few passes, and one thread.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch.nn import functional

from deploy.errors import UserError
from deploy.preprocess import resize_nearest
from distill.config import AugmentConfig
from distill.data.sample import IGNORE, Sample

GREY = (0.2989, 0.587, 0.114)
"""Weights of R, G and B in brightness, those of torchvision."""


def augment(
    sample: Sample, config: AugmentConfig, rng: np.random.Generator, mean: Sequence[float], optical: bool
) -> Sample:
    """A random variant of `sample`, exactly `config.crop` pixels in size.

    `sample.image` is uint8 or float32 C×H×W without NaN, uint8 of three channels best with strides of H×W×C; the result
    is float32 in the same units. The zoom is relative to the size of `sample`. What the crop takes from outside the
    image has the channel mean, label 255 and valid False. Photometric jitter changes only optical images of three
    channels.
    """
    window = _window(sample.label.shape[0], sample.label.shape[1], config.crop, config.scale, rng)
    inside, place = _cut(sample.label.shape[0], sample.label.shape[1], window, config.crop)
    size = (place[0].stop - place[0].start, place[1].stop - place[1].start)
    pixels = _zoomed(sample.image.numpy()[:, *inside], size)
    if optical and pixels.shape[2] == 3 and config.photometric > 0:
        pixels = jitter_colors(pixels.astype(np.float32), config.photometric, rng)
    mirror = slice(None, None, -1 if config.flip and rng.random() < 0.5 else 1)
    turn = slice(None, None, -1 if config.vertical_flip and rng.random() < 0.5 else 1)
    image = np.empty((pixels.shape[2], *config.crop), np.float32)
    label = np.empty(config.crop, np.int64)
    if size != config.crop:
        image[...] = np.asarray(mean, np.float32)[:, None, None]
        label.fill(IGNORE)
    # Written to as they look before the flips: place, flips, types and order of channels in one pass.
    image.transpose(1, 2, 0)[turn, mirror][place] = pixels
    label[turn, mirror][place] = resize_nearest(sample.label.numpy()[inside], *size)
    valid = label != IGNORE
    return Sample(torch.from_numpy(image), torch.from_numpy(label), torch.from_numpy(valid), sample.id)


def check_augment(config: AugmentConfig) -> None:
    """Raise UserError naming the field of `config` that makes no sense."""
    if min(config.crop) < 1:
        raise UserError(f"--augment.crop {config.crop}: sides must be positive")
    if not 0 < config.scale[0] <= config.scale[1]:
        raise UserError(f"--augment.scale {config.scale}: give the smaller zoom first, above 0")
    if not 0 <= config.rotate <= 180:
        raise UserError(f"--augment.rotate {config.rotate}: must be in 0..180 degrees")
    if not 0 <= config.photometric <= 1:
        raise UserError(f"--augment.photometric {config.photometric}: must be in 0..1")


Window = tuple[int, int, int, int]
"""Top, left, height, width in pixels; may reach beyond the image."""

Area = tuple[slice, slice]
"""Rows and columns."""


def _window(
    height: int, width: int, crop: tuple[int, int], scale: tuple[float, float], rng: np.random.Generator
) -> Window:
    """The part of an image that a random zoom brings to the size of the crop."""
    # Uniform in the logarithm, so that halving is as likely as doubling.
    zoom = float(np.exp(rng.uniform(np.log(scale[0]), np.log(scale[1]))))
    tall, wide = (max(1, round(side / zoom)) for side in crop)
    return _offset(height, tall, rng), _offset(width, wide, rng), tall, wide


def _offset(available: int, wanted: int, rng: np.random.Generator) -> int:
    """A random start such that the window lies in the image, or the image in the window."""
    spare = available - wanted
    return int(rng.integers(min(spare, 0), max(spare, 0) + 1))


def _cut(height: int, width: int, window: Window, crop: tuple[int, int]) -> tuple[Area, Area]:
    """The part of the window that lies in the image, and the area that it fills of the crop."""
    top, left, tall, wide = window
    rows, down = _cut_axis(height, top, tall, crop[0])
    columns, across = _cut_axis(width, left, wide, crop[1])
    return (rows, columns), (down, across)


def _cut_axis(available: int, start: int, extent: int, crop: int) -> tuple[slice, slice]:
    first, last = max(start, 0), min(start + extent, available)
    size = max(1, round((last - first) * crop / extent))
    at = min(round((first - start) * crop / extent), crop - size)
    return slice(first, last), slice(at, at + size)


def _zoomed(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """C×H×W as H×W×C of that size: bilinear, with antialiasing, pixel centres at half positions."""
    pixels = image.transpose(1, 2, 0)
    if pixels.shape[:2] == size:
        return pixels
    if image.dtype == np.uint8:  # torch has a kernel of its own for channels that lie together in memory
        pixels = np.ascontiguousarray(pixels)
    planes = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
    zoomed = functional.interpolate(planes, size, mode="bilinear", antialias=True)
    return zoomed[0].permute(1, 2, 0).numpy()


def jitter_colors(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Change brightness, contrast and saturation, in random order, each by a factor in 1 ± `strength`.

    `image` is float32 H×W×3 in 0..255, and so is the result. This is torchvision's ColorJitter with numbers from `rng`,
    to within rounding. OpenCV multiplies by small matrices, as BLAS may start threads for it that training needs.
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
    """Away from the mean grey, which is the grey of the mean colour."""
    grey = np.dot(GREY, cv2.mean(image)[:3])
    changed = image * np.float32(factor)
    changed += np.float32((1 - factor) * grey)
    return changed


def _saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Away from the grey of each pixel."""
    return cv2.transform(image, factor * np.eye(3) + (1 - factor) * np.asarray(GREY))
