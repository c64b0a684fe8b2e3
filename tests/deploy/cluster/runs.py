"""Runs of `predict-many`, and of the commands whose results it must give."""

from pathlib import Path

import numpy as np

from deploy.cli import main
from deploy.files.images import write_png
from deploy.predict.record import NAME as RECORD
from tests.deploy.tiny import make_image

ENGINE = ("--backend", "onnxruntime", "--threads", "1")


def many(bundle: Path, given: Path, out: Path, *more: str) -> int:
    return main(["predict-many", str(bundle), str(given), str(out), *ENGINE, *more])


def one_by_one(bundle: Path, given: Path, out: Path, *more: str) -> int:
    """By `predict`, whose exit code is 1 if some of the images cannot be read."""
    return main(["predict", str(bundle), str(given), "--out", str(out), *ENGINE, *more])


def raster(bundle: Path, given: Path, out: Path, *more: str) -> int:
    return main(["predict-raster", str(bundle), str(given), str(out), *ENGINE, *more])


def write_images(folder: Path, count: int, size: tuple[int, int] = (40, 60)) -> Path:
    folder.mkdir(exist_ok=True)
    for seed in range(count):
        write_png(folder / f"{seed:03d}.png", make_image(seed=seed, size=size))
    return folder


def write_scenes(folder: Path, count: int, size: tuple[int, int] = (30, 50)) -> Path:
    """Images of the SAR bundle as arrays, with holes."""
    folder.mkdir(exist_ok=True)
    for seed in range(count):
        image = make_image("sar", seed, size)
        image[:5, seed:] = np.nan
        np.save(folder / f"{seed:03d}.npy", image)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder and its subfolders, hidden ones too, but for the record that `predict` leaves."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != RECORD)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
