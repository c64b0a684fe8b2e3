"""An image and the grasps that are known to work in it."""

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
    """float32 C×H×W in raw units: colors 0..255, depth in meters; NaN where there is no data (holes of depth)."""
    grasps: np.ndarray
    """float64 N×5 in pixels of the image (see `deploy.tasks.grasp.geometry`); N = 0: nothing to grasp."""
    id: str
    object: str
    """Identity of what is seen: images of one object share it."""


def make_grasp_sample(
    image: np.ndarray, grasps: np.ndarray, *, id: str, object: str, source: str | Path | None = None
) -> GraspSample:
    """Check an image and its grasps and join them.

    `image` is H×W×C in raw units, and infinite pixels become NaN; `grasps` is N×5, angles of any turn. A grasp whose
    rectangle has no part in the image (that is, whose bounding box has none) is dropped. One whose center alone lies
    outside is kept: it can still be matched by a prediction, and `distill.data.grasp.targets` draws its part inside.
    Raises UserError naming `source` (default: the id) where an array has another shape, a grasp is not finite, or a
    size is not above 0.
    """
    name = str(source or id)
    if image.ndim != 3 or image.size == 0:
        raise UserError(f"{name}: an image is H×W×C and not empty; that of {id} has shape {image.shape}")
    checked = _checked(grasps, name)
    pixels = image.transpose(2, 0, 1).astype(np.float32, order="C")
    pixels[~np.isfinite(pixels)] = np.nan
    kept = checked[touches(checked, image.shape[0], image.shape[1])]
    return GraspSample(torch.from_numpy(pixels), kept, id, object)


def touches(grasps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Of grasps N×5, whether the bounding box of each has a part in an image of that size: bool N."""
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
