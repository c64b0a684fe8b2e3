"""Random changes of a training sample: zoom, crop, flips, and color jitter for optical images.

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
from deploy.inference.preprocess import resize_nearest
from distill.config import AugmentConfig
from distill.data.crops import choose_window, cut
from distill.data.sample import IGNORE, Sample

GRAY = (0.2989, 0.587, 0.114)
"""Weights of R, G and B in brightness, those of torchvision."""


def augment(
    sample: Sample,
    config: AugmentConfig,
    rng: np.random.Generator,
    mean: Sequence[float],
    optical: bool,
    wanted: int | None = None,
) -> Sample:
    """A random variant of `sample`, exactly `config.crop` pixels in size.

    `sample.image` is uint8 or float32 C×H×W without NaN, uint8 of three channels best with strides of H×W×C; the result
    is float32 in the same units. The zoom is relative to the size of `sample`. What the crop takes from outside the
    image has the channel mean, label 255 and valid False. Photometric jitter changes only optical images of three
    channels. The class `wanted`, if any, is in the crop where the sample has it.
    """
    window = choose_window(sample, config, rng, wanted)
    inside, place = cut(sample.label.shape[0], sample.label.shape[1], window, config.crop)
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
    for name, share in (("balance", config.balance), ("max-no-data", config.max_no_data)):
        if not 0 <= share <= 1:
            raise UserError(f"--augment.{name} {share}: is a share, from 0 to 1")


def _zoomed(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """C×H×W as H×W×C of that size: bilinear, with antialiasing, pixel centers at half positions."""
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
    """Away from the mean gray, which is the gray of the mean color."""
    gray = np.dot(GRAY, cv2.mean(image)[:3])
    changed = image * np.float32(factor)
    changed += np.float32((1 - factor) * gray)
    return changed


def _saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Away from the gray of each pixel."""
    return cv2.transform(image, factor * np.eye(3) + (1 - factor) * np.asarray(GRAY))
