"""What the readers of grasp data share: which channels are read, files of numbers, images and depth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from deploy.errors import UserError
from deploy.files.images import read_image
from deploy.inference.depth import warn_of_millimeters
from distill.config import DataConfig

DEPTH = "depth"
"""Name of the channel that holds depth."""

Channels = Literal["depth", "rgb", "rgbd"]
"""What the network sees."""

NAMES: dict[Channels, tuple[str, ...]] = {
    "depth": (DEPTH,),
    "rgb": ("R", "G", "B"),
    "rgbd": ("R", "G", "B", DEPTH),
}
"""Name of each image channel, in order."""


def channels_of(config: DataConfig) -> Channels:
    """What `--data.channels` says for grasp data; UserError where it says anything else."""
    chosen = " ".join(config.channels) or DEPTH
    if chosen not in NAMES:
        raise UserError(f"--data.channels {chosen}: grasp data has {', '.join(NAMES)}")
    return chosen


def read_rgb(path: Path) -> np.ndarray:
    """Colors uint8 H×W×3; UserError naming the file when it holds anything else."""
    image = read_image(path)
    if image.shape[2] != 3 or image.dtype != np.uint8:
        raise UserError(f"{path}: holds {image.shape[2]} channel(s) of {image.dtype}, should be RGB of uint8")
    return image


def read_depth(path: Path) -> np.ndarray:
    """Depth float32 H×W in meters, NaN in holes; UserError naming the file when it has several channels."""
    image = read_image(path)
    if image.shape[2] != 1:
        raise UserError(f"{path}: holds {image.shape[2]} channels, should hold depth alone")
    return with_holes(image[..., 0])


def with_holes(depth: np.ndarray) -> np.ndarray:
    """Depth H×W as float32 with NaN where nothing was measured: where it is 0, negative or not finite."""
    depth = depth.astype(np.float32)
    depth[~(np.isfinite(depth) & (depth > 0))] = np.nan
    warn_of_millimeters(depth)
    return depth


def join(rgb: np.ndarray | None, depth: np.ndarray | None, name: str | Path) -> np.ndarray:
    """H×W×C of colors H×W×3, of depth H×W, or of both; UserError with `name` when their sizes differ."""
    planes = [plane for plane in (rgb, None if depth is None else depth[..., None]) if plane is not None]
    if len({plane.shape[:2] for plane in planes}) > 1:
        sizes = " and ".join(f"{plane.shape[0]}×{plane.shape[1]}" for plane in planes)
        raise UserError(f"{name}: colors and depth are {sizes} pixels, should be of one size")
    return planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2, dtype=np.float32)


def read_rows(path: Path, columns: int, separator: str | None = None) -> np.ndarray:
    """Numbers of a text file, float64 rows × `columns`, NaN allowed; blank lines are skipped.

    Raises UserError naming the file and the line that holds anything else.
    """
    rows = [
        _numbers(line, columns, separator, f"{path}, line {number}")
        for number, line in enumerate(read_text(path).splitlines(), start=1)
        if line.strip()
    ]
    return np.array(rows, np.float64).reshape(-1, columns)


def read_text(path: Path) -> str:
    """The text of a file; UserError naming it when it is missing or not text."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file; get it again") from error


def _numbers(line: str, columns: int, separator: str | None, where: str) -> list[float]:
    parts: Sequence[str] = line.split(separator)
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) != columns:
        raise UserError(f"{where}: {line.strip()[:60]!r} should be {columns} numbers; get the file again")
    return numbers
