"""Shared by the readers of grasp data: choice of channels, and reading of images, depth and tables of numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from deploy.errors import UserError
from deploy.files.images import read_image
from deploy.inference.depth import warn_of_millimeters
from distill.config import DataConfig
from distill.data.datasets.pairs import RGB_CHANNELS, read_text

DEPTH = "depth"
"""Name of the depth channel."""

Channels = Literal["depth", "rgb", "rgbd"]
"""What the network receives."""

CHANNEL_NAMES: dict[Channels, tuple[str, ...]] = {
    "depth": (DEPTH,),
    "rgb": RGB_CHANNELS,
    "rgbd": (*RGB_CHANNELS, DEPTH),
}
"""Names of the image channels, in order."""


def channels_of(config: DataConfig) -> Channels:
    """The channels that `--data.channels` selects of grasp data.

    Raises:
        UserError: grasp data has no such channels.
    """
    chosen = " ".join(config.channels) or DEPTH
    if chosen not in CHANNEL_NAMES:
        raise UserError(f"--data.channels {chosen}: grasp data has {', '.join(CHANNEL_NAMES)}")
    return chosen


def read_rgb(path: Path) -> np.ndarray:
    """Read colors as uint8 H×W×3.

    Raises:
        UserError: the image has another type or number of channels.
    """
    image = read_image(path)
    if image.shape[2] != 3 or image.dtype != np.uint8:
        raise UserError(f"{path}: holds {image.shape[2]} channel(s) of {image.dtype}, should be RGB of uint8")
    return image


def read_depth(path: Path) -> np.ndarray:
    """Read depth as float32 H×W in meters, NaN in holes.

    Raises:
        UserError: the image has several channels.
    """
    image = read_image(path)
    if image.shape[2] != 1:
        raise UserError(f"{path}: holds {image.shape[2]} channels, should hold depth alone")
    return mark_holes(image[..., 0])


def mark_holes(depth: np.ndarray) -> np.ndarray:
    """Depth H×W as float32 with NaN where it is 0, negative or not finite: nothing was measured there."""
    depth = depth.astype(np.float32)
    depth[~(np.isfinite(depth) & (depth > 0))] = np.nan
    warn_of_millimeters(depth)
    return depth


def join_channels(rgb: np.ndarray | None, depth: np.ndarray | None, name: str | Path) -> np.ndarray:
    """Colors H×W×3, depth H×W, or both, as one image H×W×C.

    Raises:
        UserError: their sizes differ; the message begins with `name`.
    """
    planes = [plane for plane in (rgb, None if depth is None else depth[..., None]) if plane is not None]
    if len({plane.shape[:2] for plane in planes}) > 1:
        sizes = " and ".join(f"{plane.shape[0]}×{plane.shape[1]}" for plane in planes)
        raise UserError(f"{name}: colors and depth are {sizes} pixels, should be of one size")
    return planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2, dtype=np.float32)


def read_rows(path: Path, columns: int, separator: str | None = None) -> np.ndarray:
    """Read the numbers of a text file, NaN included; blank lines are skipped.

    Args:
        path: the file.
        columns: numbers per line.
        separator: what separates them; default: white space.

    Returns:
        float64 rows × `columns`.

    Raises:
        UserError: the file is missing, or a line does not hold that many numbers.
    """
    rows = [
        _numbers(line, columns, separator, f"{path}, line {number}")
        for number, line in enumerate(read_text(path).splitlines(), start=1)
        if line.strip()
    ]
    return np.array(rows, np.float64).reshape(-1, columns)


def _numbers(line: str, columns: int, separator: str | None, where: str) -> list[float]:
    parts: Sequence[str] = line.split(separator)
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) != columns:
        raise UserError(f"{where}: {line.strip()[:60]!r} should be {columns} numbers; get the file again")
    return numbers
