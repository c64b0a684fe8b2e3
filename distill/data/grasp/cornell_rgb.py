"""Cornell in colors only, as in a derived repository: 1416 images of 224×224, rotated and shifted in advance.

grasps.csv           image,split,cx,cy,theta_deg,opening,jaw: a grasp per line, in pixels and degrees counterclockwise
images/IMAGE.jpg

Image pcdNNNN_K is the K-th variant of image NNNN of Cornell. Angles are rounded to 10°, so no network can be more
accurate than 5°. The split is by blocks of 20 consecutive NNNN, because Cornell numbers the views of an object
consecutively. The objects themselves are not given, so each block counts as one object.
"""

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.errors import UserError
from distill.config import DataConfig
from distill.data.datasets.pairs import find_root, read_text
from distill.data.grasp.files import read_rgb
from distill.data.grasp.sample import GraspSample, make_grasp_sample
from distill.data.grasp.splits import grasp_splits
from distill.data.splits import Splits

GET = "it should hold grasps.csv and images/"
COLUMNS = ("image", "split", "cx", "cy", "theta_deg", "opening", "jaw")
SPLITS = ("train", "val", "test")
BLOCK = 20
_NAME = re.compile(r"pcd(\d{4})_\d+")


@dataclass(frozen=True, eq=False)
class CornellRgbReader:
    """Images of one split."""

    folder: Path
    grasps: dict[str, np.ndarray]
    """Grasps N×5 by image name."""

    @property
    def ids(self) -> list[str]:
        """Such as "pcd0100_1"."""
        return list(self.grasps)

    @property
    def objects(self) -> list[str]:
        """The block that each image belongs to."""
        return [_block(name) for name in self.grasps]

    def __len__(self) -> int:
        return len(self.grasps)

    def files(self, index: int) -> tuple[Path, ...]:
        """The files of a sample: the image, and the table of all grasps."""
        return self.folder / f"{self.ids[index]}.jpg", self.folder.parent / "grasps.csv"

    def __getitem__(self, index: int) -> GraspSample:
        name = self.ids[index]
        path = self.folder / f"{name}.jpg"
        source = self.folder.parent / f"grasps.csv, image {name}"
        return make_grasp_sample(
            read_rgb(path), self.grasps[name], id=name, object=_block(name), source=source
        )


def open_cornell_rgb(config: DataConfig, seed: int) -> Splits:
    """The published split: 968 train, 196 val and 252 test images. `seed` is not used."""
    root = find_root(config, GET)
    table = read_table(root / "grasps.csv")
    for name in (name for images in table.values() for name in images):
        path = root / "images" / f"{name}.jpg"
        if not path.is_file():
            raise UserError(f"{path}: no such image, though grasps.csv lists it")
    train, val, test = (CornellRgbReader(root / "images", table[split]) for split in SPLITS)
    return grasp_splits("cornell_rgb", "rgb", train, val, test)


def read_table(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """Grasps N×5 by split and image, in the order of the file.

    A line with only an image and a split stands for an image without grasps.

    Raises:
        UserError: the header or a line is malformed, or a split is empty.
    """
    lines = csv.reader(io.StringIO(read_text(path)))
    if tuple(next(lines, ())) != COLUMNS:
        raise UserError(f"{path}: its first line should be {','.join(COLUMNS)}")
    rows: dict[str, dict[str, list[list[float]]]] = {split: {} for split in SPLITS}
    for line in lines:
        name, split, grasp = _parse(line, f"{path}, line {lines.line_num}")
        rows[split].setdefault(name, []).extend(grasp)
    empty = next((split for split in SPLITS if not rows[split]), None)
    if empty:
        raise UserError(f"{path}: lists no image of the split {empty}")
    return {
        split: {name: np.array(grasps, np.float64).reshape(-1, 5) for name, grasps in images.items()}
        for split, images in rows.items()
    }


def _parse(line: list[str], where: str) -> tuple[str, str, list[list[float]]]:
    """Image and split of a line, and a list of its grasp, empty if it has none."""
    try:
        name, split, *cells = line
        numbers = [float(cell) for cell in cells if cell]
    except ValueError as error:
        raise UserError(f"{where}: {','.join(line)[:60]!r} is not {','.join(COLUMNS)}") from error
    if len(numbers) not in (0, 5) or split not in SPLITS or not _NAME.fullmatch(name):
        raise UserError(f"{where}: {','.join(line)[:60]!r} is not {','.join(COLUMNS)}")
    if not numbers:
        return name, split, []
    x, y, degrees, opening, jaw = numbers
    return name, split, [[x, y, float(np.radians(degrees)), opening, jaw]]


def _block(name: str) -> str:
    match = _NAME.fullmatch(name)
    assert match, name
    return f"block{int(match[1]) // BLOCK:02d}"
