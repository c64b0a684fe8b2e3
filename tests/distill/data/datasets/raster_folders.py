"""Small data sets of rasters: a folder of GeoTIFFs and OMBRIA."""

from pathlib import Path

import numpy as np

from deploy.files.images import write_png
from tests.deploy.files.tiff_files import bands, write_tiff


def folder_of(root: Path, count: int = 4, label: np.ndarray | None = None) -> None:
    mask = np.tile(np.array([[0, 1]], np.uint8), (6, 4)) if label is None else label
    for split in ("train", "val"):
        for index in range(count):
            image = bands(3, "int16") + np.int16(index)
            image[0, 0] = -32768
            write_tiff(root / split / "images" / f"{index}.tif", image, -32768)
            write_png(root / split / "masks" / f"{index}.png", mask)


def ombria(root: Path, train: int = 20, test: int = 3) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        for index in range(count):
            for channel in ("before", "after"):
                write_png(root / split / channel / f"{index:04d}.png", rng.integers(0, 256, (6, 8), np.uint8))
            write_png(root / split / "mask" / f"{index:04d}.png", rng.integers(0, 2, (6, 8), np.uint8))
