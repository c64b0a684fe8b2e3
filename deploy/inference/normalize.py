"""Images by their own mean and deviation: for radar and aerial images whose level differs from scene to scene.

`InputSpec.normalize` says by which numbers the network's input is normalized:

    set      those of the training split, in the graph
    image    those of the whole image, at its own size, before it is resized or tiled
    patch    those of what the network sees at a time: the resized image, a window, a tile; in training the crop

Training and device call these very functions. Only pixels with data count, and the others are 0 afterwards. Until then
they are NaN where the numbers are a patch's.
"""

from typing import Literal

import numpy as np

Normalize = Literal["set", "image", "patch"]


def standardized(image: np.ndarray) -> np.ndarray:
    """H×W×C less its mean and over its deviation, channel by channel, over the pixels that are finite in all channels.

    Float32, and 0 where a pixel is not finite. A constant channel is 0; so is an image without any data.
    """
    valid = np.all(np.isfinite(image), axis=2)
    seen = image[valid].astype(np.float64)  # float32 would lose sums of large images
    if not len(seen):
        return np.zeros(image.shape, np.float32)
    mean, std = seen.mean(axis=0), seen.std(axis=0)
    std = np.where(std > 1e-6 * np.abs(mean), std, 1)
    result = (image - mean.astype(np.float32)) / std.astype(np.float32)
    return np.where(valid[..., None], result, np.float32(0))


def filled(image: np.ndarray, valid: np.ndarray, fill: np.ndarray, normalize: Normalize) -> np.ndarray:
    """An image float32 H×W×C with `fill` (see `fill_of`) where bool H×W `valid` is False; by "image", standardized."""
    if normalize == "image":
        return standardized(np.where(valid[..., None], image, np.float32(np.nan)))
    return image if valid.all() else np.where(valid[..., None], image, fill)


def fill_of(mean: tuple[float, ...], normalize: Normalize) -> np.ndarray:
    """What stands where there is no data before the network's last step: float32, one number a channel."""
    value = {"set": mean, "image": (0.0,) * len(mean), "patch": (np.nan,) * len(mean)}[normalize]
    return np.asarray(value, np.float32)
