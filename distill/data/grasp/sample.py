"""The sample type of grasp detection: an image and its known good grasps."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deploy.errors import UserError
from deploy.tasks.grasp.geometry import ANGLE, HEIGHT, WIDTH, corners, wrap_angle


@dataclass(frozen=True, eq=False)
class GraspSample:
    """One image with its grasps."""

    image: Tensor
    """float32 C×H×W in raw units: colors 0..255, depth in meters; NaN where there is no data (holes in depth)."""
    grasps: np.ndarray
    """float64 N×5 in pixels of the image (see `deploy.tasks.grasp.geometry`); N = 0: nothing to grasp."""
    id: str
    object: str
    """Identity of the object: all images of one object share it."""


def make_grasp_sample(
    image: np.ndarray, grasps: np.ndarray, *, id: str, object: str, source: str | Path | None = None
) -> GraspSample:
    """Check an image and its grasps, and combine them into a sample.

    A grasp whose bounding box lies outside the image is dropped. If only its center lies outside, it stays: a
    prediction can still match it, and `distill.data.grasp.targets` draws the part inside.

    Args:
        image: H×W×C in raw units; infinite pixels become NaN.
        grasps: N×5, angles in any range.
        id: name of the sample.
        object: identity of the object.
        source: what error messages name; default: the id.

    Raises:
        UserError: an array has another shape, a grasp is not finite, or a size is not above 0.
    """
    name = str(source or id)
    if image.ndim != 3 or image.size == 0:
        raise UserError(f"{name}: an image is H×W×C and not empty; that of {id} has shape {image.shape}")
    checked = _checked(grasps, name)
    pixels = image.transpose(2, 0, 1).astype(np.float32, order="C")
    pixels[~np.isfinite(pixels)] = np.nan
    visible = checked[overlaps_image(checked, image.shape[0], image.shape[1])]
    return GraspSample(torch.from_numpy(pixels), visible, id, object)


def overlaps_image(grasps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Whether the bounding box of each of the grasps N×5 overlaps an image of that size: bool N."""
    ring = corners(grasps)
    low, high = ring.min(axis=1), ring.max(axis=1)
    return ((high > -0.5) & (low < (width - 0.5, height - 0.5))).all(axis=1)


def _checked(grasps: np.ndarray, name: str) -> np.ndarray:
    grasps = np.array(grasps, np.float64)
    if grasps.size == 0:
        return np.zeros((0, 5))
    if grasps.ndim != 2 or grasps.shape[1] != 5:
        raise UserError(
            f"{name}: grasps are N×5 (x, y, angle, width, height), these have shape {grasps.shape}"
        )
    for number, grasp in enumerate(grasps, start=1):
        if not np.isfinite(grasp).all():
            raise UserError(f"{name}: grasp {number} is not finite ({_text(grasp)}); remove it")
        if min(grasp[WIDTH], grasp[HEIGHT]) <= 0:
            raise UserError(
                f"{name}: grasp {number} has a size that is not above 0 ({_text(grasp)}); remove it"
            )
    grasps[:, ANGLE] = wrap_angle(grasps[:, ANGLE])
    return grasps


def _text(grasp: np.ndarray) -> str:
    return ", ".join(f"{value:g}" for value in grasp)
