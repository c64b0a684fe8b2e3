"""A few images in the published layouts of Cornell and Jacquard, each of another object."""

from pathlib import Path

import numpy as np
from PIL import Image

COUNT = 14
"""Enough for each split to have some, and for INT8 to be calibrated."""


def write_cornell(root: Path) -> None:
    (root / "01").mkdir(parents=True)
    lines = []
    for number in range(100, 100 + COUNT):
        stem = root / "01" / f"pcd{number:04d}"
        _depth(Path(f"{stem}d.tiff"), (480, 640), number)
        Path(f"{stem}cpos.txt").write_text("253 319\n309 324\n307 350\n251 345\n", encoding="utf-8")
        lines.append(f"{number:04d} {number} thing\n")
    (root / "z.txt").write_text("".join(lines))


def write_jacquard(root: Path) -> None:
    for number in range(COUNT):
        folder = root / f"object{number}"
        folder.mkdir(parents=True)
        _depth(folder / f"0_object{number}_perfect_depth.tiff", (256, 256), number)
        (folder / f"0_object{number}_grasps.txt").write_text("100;120;30;40;15\n")


def _depth(path: Path, size: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.uniform(0.5, 0.7, size).astype(np.float32)).save(path)


def at(root: Path, name: str):
    """A configuration with the name and the root of a data set, all that the readers look at."""
    return type("Config", (), {"name": name, "root": root})()


def write_tiff(path: Path, depth: np.ndarray) -> None:
    Image.fromarray(depth.astype(np.float32)).save(path)
