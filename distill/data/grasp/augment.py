"""Random augmentation of a grasp image: rotation, zoom, shift, flips, and color jitter.

One matrix transforms image and grasps, so the image is interpolated only once. Every random number comes from the
generator passed in, so a sample depends only on its key.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from distill.config import AugmentConfig
from distill.data.augment import jitter_colors
from distill.data.crops import random_zoom
from distill.data.grasp.affine import similarity_matrix


def random_matrix(height: int, width: int, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """A random matrix (see `distill.data.grasp.affine`) from an image of that size to a training crop.

    The crop, at the size that the zoom gives it in the image, lies at a random position inside the image (or the image
    inside the crop, along a side where it is smaller). It is then rotated around its center by a uniform angle of up to
    `config.rotate` degrees either way.
    """
    zoom = random_zoom(config.scale, rng)
    y, x = (
        _random_start(side, crop / zoom, rng) + crop / zoom / 2 - 0.5
        for side, crop in zip((height, width), config.crop, strict=True)
    )
    angle = np.radians(rng.uniform(-config.rotate, config.rotate))
    flips = (config.flip and rng.random() < 0.5, config.vertical_flip and rng.random() < 0.5)
    middle = ((config.crop[1] - 1) / 2, (config.crop[0] - 1) / 2)
    return similarity_matrix((x, y), middle, angle, zoom, flips)


def warp(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Transform an image by an affine matrix with bilinear interpolation; its border is repeated outside.

    There is no smoothing before a zoom out, which costs little down to a zoom of 1/2.

    Args:
        image: H×W×C or H×W, uint8 or float32.
        matrix: see `distill.data.grasp.affine`.
        size: height and width of the result.

    Returns:
        The transformed image, of the same type and number of axes.
    """
    return cv2.warpAffine(
        image, matrix, (size[1], size[0]), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def valid_mask(matrix: np.ndarray, source: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Which pixels of a transformed image come from inside the source image.

    Args:
        matrix: see `distill.data.grasp.affine`.
        source: height and width of the source image.
        size: height and width of the transformed image.

    Returns:
        bool H×W of `size`.
    """
    inverse = np.linalg.inv(matrix[:, :2])
    dx = np.arange(size[1]) - matrix[0, 2]
    dy = np.arange(size[0])[:, None] - matrix[1, 2]
    inside = np.ones(size, bool)
    for (a, b), side in zip(inverse, (source[1], source[0]), strict=True):
        place = a * dx + b * dy
        inside &= (place >= -0.5) & (place <= side - 0.5)
    return inside


def jitter_rgb(
    image: np.ndarray, colors: Sequence[int], strength: float, rng: np.random.Generator
) -> np.ndarray:
    """Change brightness, contrast and saturation of the color channels of H×W×C; the other channels stay.

    Args:
        image: H×W×C, colors in 0..255.
        colors: indices of R, G and B; without all three nothing changes.
        strength: see `jitter_colors`.
        rng: source of all random numbers.

    Returns:
        The changed image, or `image` itself.
    """
    if len(colors) != 3 or strength <= 0:
        return image
    if image.shape[2] == 3:
        return jitter_colors(image.astype(np.float32), strength, rng)
    changed = image.copy()
    changed[..., colors] = jitter_colors(np.ascontiguousarray(image[..., colors]), strength, rng)
    return changed


def _random_start(available: float, extent: float, rng: np.random.Generator) -> float:
    """A random start such that the extent lies inside what is available, or the other way round."""
    spare = available - extent
    return float(rng.uniform(min(spare, 0.0), max(spare, 0.0)))
