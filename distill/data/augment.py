"""Random changes of a training sample: zoom, crop, flips, and colour jitter for optical images.

Image, label and valid mask move together (torchvision v2). Every random number comes from the generator passed in, and
never from torch's global one, so a sample depends on its own key alone.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tf

from deploy.errors import UserError
from distill.config import AugmentConfig
from distill.data.sample import IGNORE, Sample


def augment(
    sample: Sample, config: AugmentConfig, rng: np.random.Generator, mean: Sequence[float], optical: bool
) -> Sample:
    """A random variant of `sample`, exactly `config.crop` pixels in size.

    `sample.image` is uint8 or float32 C×H×W without NaN; the result is float32 in the same units. The zoom is relative
    to the size of `sample`. What the crop takes from outside the image has the channel mean, label 255 and valid False.
    Photometric jitter changes only optical images of three channels.
    """
    crop = config.crop
    window = _window(sample.label.shape[0], sample.label.shape[1], crop, config.scale, rng)
    inside, margins = _zoom_crop(sample, window, crop)
    image = inside.image.float()
    if optical and image.shape[0] == 3 and config.photometric > 0:
        image = jitter_colors(image, config.photometric, rng)
    parts = (tv_tensors.Image(image), tv_tensors.Mask(inside.label), tv_tensors.Mask(inside.valid))
    if any(margins):
        parts = _pad(*parts, margins, mean)
    if config.flip and rng.random() < 0.5:
        parts = tuple(tf.horizontal_flip(part) for part in parts)
    if config.vertical_flip and rng.random() < 0.5:
        parts = tuple(tf.vertical_flip(part) for part in parts)
    image, label, valid = (part.as_subclass(Tensor).contiguous() for part in parts)
    return Sample(image, label, valid, sample.id)


def check_augment(config: AugmentConfig) -> None:
    """Raise UserError naming the field of `config` that makes no sense."""
    if min(config.crop) < 1:
        raise UserError(f"--augment.crop {config.crop}: sides must be positive")
    if not 0 < config.scale[0] <= config.scale[1]:
        raise UserError(f"--augment.scale {config.scale}: give the smaller zoom first, above 0")
    if not 0 <= config.photometric <= 1:
        raise UserError(f"--augment.photometric {config.photometric}: must be in 0..1")


Window = tuple[int, int, int, int]
"""Top, left, height, width in pixels; may reach beyond the image."""


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


def _zoom_crop(sample: Sample, window: Window, crop: tuple[int, int]) -> tuple[Sample, list[int]]:
    """The part of the window that lies in the image, at the scale of the crop, and the margins that it leaves.

    Margins are left, top, right, bottom in pixels of the crop, which is how torchvision pads.
    """
    top, left, tall, wide = window
    height, width = sample.label.shape
    y0, y1 = max(top, 0), min(top + tall, height)
    x0, x1 = max(left, 0), min(left + wide, width)
    size = [max(1, round((y1 - y0) * crop[0] / tall)), max(1, round((x1 - x0) * crop[1] / wide))]
    north = min(round((y0 - top) * crop[0] / tall), crop[0] - size[0])
    west = min(round((x0 - left) * crop[1] / wide), crop[1] - size[1])
    cut = Sample(
        sample.image[:, y0:y1, x0:x1], sample.label[y0:y1, x0:x1], sample.valid[y0:y1, x0:x1], sample.id
    )
    margins = [west, north, crop[1] - west - size[1], crop[0] - north - size[0]]
    return _resize(cut, size), margins


def _resize(sample: Sample, size: list[int]) -> Sample:
    """Bilinear (with antialiasing) for the image, nearest for the masks."""
    if list(sample.label.shape) == size:
        return sample
    image = tf.resize_image(sample.image, size, interpolation=InterpolationMode.BILINEAR, antialias=True)
    # The masks go through the image kernel: "nearest exact" samples at pixel centres as bilinear does, where plain
    # "nearest", the default for masks, would shift them by up to half a pixel against the image.
    label, valid = (
        tf.resize_image(mask[None].to(torch.uint8), size, interpolation=InterpolationMode.NEAREST_EXACT)[0]
        for mask in (sample.label, sample.valid)
    )
    return Sample(image, label.long(), valid.bool(), sample.id)


def _pad(
    image: tv_tensors.Image,
    label: tv_tensors.Mask,
    valid: tv_tensors.Mask,
    margins: list[int],
    mean: Sequence[float],
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        tf.pad(image, margins, fill=list(mean)),
        tf.pad(label, margins, fill=IGNORE),
        tf.pad(valid, margins, fill=0),
    )


def jitter_colors(image: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    """Change brightness, contrast and saturation, in random order, each by a factor in 1 ± `strength`.

    `image` is float32 3×H×W in 0..255, and so is the result. This is torchvision's ColorJitter with numbers from `rng`.
    """
    changes = (tf.adjust_brightness, tf.adjust_contrast, tf.adjust_saturation)
    low = max(0.0, 1 - strength)
    pixels = image / 255  # torchvision clamps float images to 0..1
    for number in rng.permutation(len(changes)):
        pixels = changes[number](pixels, float(rng.uniform(low, 1 + strength)))
    return pixels * 255
