"""Normalize images by their own mean and standard deviation: for radar and aerial images whose level varies by scene.

`InputSpec.normalize` says which statistics normalize the network's input:

    set      those of the training split, in the graph
    image    those of the whole image, at its own size, before it is resized or tiled
    patch    those of each input of the network: the resized image, a window or a tile; in training the crop

Training and devices call the same functions. Only pixels with data count, and the others are 0 afterwards. With "patch"
they are NaN until then.

With "set", the graph may scale the pixels first (`deploy.bundle.pixel_scale`); whatever is outside the graph remains in
raw units.
"""

import math
from typing import Literal, Protocol

import numpy as np

from deploy.bundle.pixel_scale import PixelScale

Normalize = Literal["set", "image", "patch"]


class Normalization(Protocol):
    """How the channels of images are normalized: a `deploy.bundle.manifest.InputSpec`, or statistics of training."""

    @property
    def mean(self) -> tuple[float, ...]:
        """Of each channel, scaled by `scale`."""
        ...

    @property
    def normalize(self) -> Normalize:
        """Whose statistics these are."""
        ...

    @property
    def scale(self) -> PixelScale:
        """What happens to pixels before that."""
        ...


def standardized(image: np.ndarray) -> np.ndarray:
    """Standardize an image H×W×C channel by channel, by its pixels that are finite in all channels.

    Returns:
        Float32 H×W×C of mean 0 and standard deviation 1 per channel; 0 where a pixel is not finite in all channels.
        A constant channel is 0, and so is an image without any data.
    """
    valid = np.all(np.isfinite(image), axis=2)
    seen = image[valid].astype(np.float64)  # float32 loses precision in the sums of large images
    if not len(seen):
        return np.zeros(image.shape, np.float32)
    mean, std = seen.mean(axis=0), seen.std(axis=0)
    std = np.where(std > 1e-6 * np.abs(mean), std, 1)
    result = (image - mean.astype(np.float32)) / std.astype(np.float32)
    return np.where(valid[..., None], result, np.float32(0))


def filled(image: np.ndarray, valid: np.ndarray, fill: np.ndarray, normalize: Normalize) -> np.ndarray:
    """Fill the pixels without data of an image; with "image", standardize it.

    Args:
        image: float32 H×W×C.
        valid: bool H×W: pixels that carry data.
        fill: the value for the others, as `fill_of` returns it.
        normalize: see `InputSpec.normalize`.

    Returns:
        Float32 H×W×C; the image itself where there is nothing to change.
    """
    if normalize == "image":
        return standardized(np.where(valid[..., None], image, np.float32(np.nan)))
    return image if valid.all() else np.where(valid[..., None], image, fill)


def raw_mean(by: Normalization) -> tuple[float, ...]:
    """What `by.mean` stands for in raw units: each channel of the pixel that the graph makes 0."""
    return tuple(by.scale.raw(value, math) for value in by.mean)


def fill_of(by: Normalization) -> np.ndarray:
    """Value of pixels without data until `deploy.inference.preprocess.to_network`: float32, one number per channel."""
    count = len(by.mean)
    value = {"set": raw_mean(by), "image": (0.0,) * count, "patch": (np.nan,) * count}[by.normalize]
    return np.asarray(value, np.float32)
