"""Random changes of a grasp image: turn, zoom, shift, flips, and color jitter.

Image and grasps move by one matrix, and the image is interpolated once. Every random number comes from the generator
passed in, so a sample depends on its own key alone.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from distill.config import AugmentConfig
from distill.data.augment import jitter_colors
from distill.data.grasp.affine import turning


def random_matrix(height: int, width: int, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """A matrix (see `distill.data.grasp.affine`) from an image of that size to a training crop.

    The crop, as large as the zoom makes it in the image, lies anywhere in the image (or the image in the crop, along a
    side where it is smaller); then all turns around its middle by up to `config.rotate` degrees either way, evenly.
    """
    # Uniform in the logarithm, so that halving is as likely as doubling.
    zoom = float(np.exp(rng.uniform(np.log(config.scale[0]), np.log(config.scale[1]))))
    y, x = (
        _start(side, crop / zoom, rng) + crop / zoom / 2 - 0.5
        for side, crop in zip((height, width), config.crop, strict=True)
    )
    angle = np.radians(rng.uniform(-config.rotate, config.rotate))
    flips = (config.flip and rng.random() < 0.5, config.vertical_flip and rng.random() < 0.5)
    middle = ((config.crop[1] - 1) / 2, (config.crop[0] - 1) / 2)
    return turning((x, y), middle, angle, zoom, flips)


def warp(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """H×W×C of uint8 or float32 moved by `matrix` to `size`, bilinearly; H×W stays H×W.

    Outside the image its border is repeated. There is no smoothing before a zoom out, which loses little down to 1/2.
    """
    return cv2.warpAffine(
        image, matrix, (size[1], size[0]), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def covered(matrix: np.ndarray, before: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Of the pixels of an image of `size`, which come from inside the image `before`, moved by `matrix`: bool H×W."""
    inverse = np.linalg.inv(matrix[:, :2])
    dx = np.arange(size[1]) - matrix[0, 2]
    dy = np.arange(size[0])[:, None] - matrix[1, 2]
    inside = np.ones(size, bool)
    for (a, b), side in zip(inverse, (before[1], before[0]), strict=True):
        place = a * dx + b * dy
        inside &= (place >= -0.5) & (place <= side - 0.5)
    return inside


def jittered(
    image: np.ndarray, colors: Sequence[int], strength: float, rng: np.random.Generator
) -> np.ndarray:
    """H×W×C with the brightness, contrast and saturation of channels R, G, B changed; the others stay."""
    if len(colors) != 3 or strength <= 0:
        return image
    if image.shape[2] == 3:
        return jitter_colors(image.astype(np.float32), strength, rng)
    changed = image.copy()
    changed[..., colors] = jitter_colors(np.ascontiguousarray(image[..., colors]), strength, rng)
    return changed


def _start(available: float, wanted: float, rng: np.random.Generator) -> float:
    """A random start such that what is wanted lies in what is available, or the other way round."""
    spare = available - wanted
    return float(rng.uniform(min(spare, 0.0), max(spare, 0.0)))
