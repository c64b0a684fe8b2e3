"""Images with grasps in a folder that a device can read (see `deploy.evaluation.labeled_data`).

`images/NAME.npy` (float32 H×W×C, depth in meters and NaN for holes) or `.png`, and `grasps/NAME.csv`: one grasp per
line, `x,y,angle,width,height` in pixels and degrees, under that header. A file with only the header has no grasps.
"""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from deploy.bundle.manifest import Manifest
from deploy.errors import UserError
from deploy.evaluation.labeled_data import read_with_data, write_image
from deploy.evaluation.receipt import Sample
from deploy.evaluation.samples import Samples
from deploy.files.atomic import atomic_write
from deploy.files.images import list_images
from deploy.tasks.grasp.geometry import ANGLE

HEADER = "x,y,angle,width,height"


def write_grasps(folder: Path, samples: Iterable[Sample]) -> int:
    """Write samples as `folder/images` and `folder/grasps`, and return how many."""
    count = 0
    for index, (name, image, grasps, _) in enumerate(samples):
        stem = f"{index:05d}-{Path(name).name}"
        write_image(folder / "images" / stem, image)
        write_csv(folder / "grasps" / f"{stem}.csv", grasps)
        count += 1
    return count


def write_csv(path: Path, grasps: np.ndarray, qualities: np.ndarray | None = None) -> None:
    """Write grasps N×5 to a file, with their qualities N as a further column if given."""
    rows = np.array(grasps, np.float64).reshape(-1, 5)
    rows[:, ANGLE] = np.degrees(rows[:, ANGLE])
    header = HEADER
    if qualities is not None:
        rows, header = np.column_stack([rows, qualities]), f"{HEADER},quality"
    lines = [header, *(",".join(f"{value:.4f}" for value in row) for row in rows)]
    with atomic_write(path, "w") as file:
        file.write("\n".join(lines) + "\n")


def read_grasps(folder: Path, manifest: Manifest) -> Samples:
    """Read the samples of a folder, in the order of their names.

    Raises:
        UserError: the folder, an image or its grasps are missing or damaged, or an image does not fit the bundle. The
            message names the file.
    """
    if not (folder / "grasps").is_dir():
        raise UserError(f"{folder / 'grasps'}: no such folder; it should hold a .csv for each of the images")
    paths = list_images(folder / "images")
    return Samples(_read(folder, paths, manifest), len(paths))


def _read(folder: Path, paths: Iterable[Path], manifest: Manifest) -> Iterator[Sample]:
    for path in paths:
        image, valid = read_with_data(path, manifest.input)
        yield path.stem, image, read_csv(folder / "grasps" / f"{path.stem}.csv"), valid


def read_csv(path: Path) -> np.ndarray:
    """Read grasps float64 N×5 from a file, with angles in radians.

    Raises:
        UserError: the file cannot be read, or a line is not a grasp; the message names both.
    """
    try:
        header, *lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); each image needs its grasps") from error
    if header.strip() != HEADER:
        raise UserError(f"{path}: begins with {header[:40]!r}; the first line must be {HEADER}")
    rows = [_row(path, number, line) for number, line in enumerate(lines, start=2) if line.strip()]
    grasps = np.array(rows, np.float64).reshape(-1, 5)
    grasps[:, ANGLE] = np.radians(grasps[:, ANGLE])
    return grasps


def _row(path: Path, number: int, line: str) -> list[float]:
    try:
        values = [float(part) for part in line.split(",")]
    except ValueError:
        values = []
    if len(values) != 5 or not all(map(math.isfinite, values)) or min(values[3:]) <= 0:
        raise UserError(
            f"{path}, line {number}: {line[:60]!r} is not {HEADER}; give five numbers, with sizes above 0"
        )
    return values
