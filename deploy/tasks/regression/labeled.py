"""Images with maps in a folder that a device can read (see `deploy.evaluation.labeled_data`).

`images/NAME.png` (uint8) or `.npy`, and `values/NAME.npy`: float32 H×W, NaN where the value is unknown.
"""

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
from deploy.files.npy import load_array

TRUTH = "values"


def write_maps(folder: Path, samples: Iterable[Sample]) -> int:
    """Write samples as `folder/images` and `folder/values`, and return how many."""
    count = 0
    for index, (name, image, values, valid) in enumerate(samples):
        stem = f"{index:05d}-{Path(name).name}"
        write_image(folder / "images" / stem, image)
        write_map(folder / TRUTH / f"{stem}.npy", np.where(valid, values, np.nan))
        count += 1
    return count


def write_map(path: Path, values: np.ndarray) -> None:
    """Write a map H×W as float32 `.npy`, atomically."""
    with atomic_write(path) as file:
        np.save(file, values.astype(np.float32))


def read_maps(folder: Path, manifest: Manifest) -> Samples:
    """Read the samples of a folder, in the order of their names.

    Raises:
        UserError: the folder, an image or a map is missing or damaged, an image does not fit the bundle, or a map
            differs in size from its image. The message names the file.
    """
    if not (folder / TRUTH).is_dir():
        raise UserError(f"{folder / TRUTH}: no such folder; it should hold a .npy for each of the images")
    paths = list_images(folder / "images")
    return Samples(_read(folder, paths, manifest), len(paths))


def _read(folder: Path, paths: Iterable[Path], manifest: Manifest) -> Iterator[Sample]:
    for path in paths:
        image, carries_data = read_with_data(path, manifest.input)
        values = read_map(folder / TRUTH / f"{path.stem}.npy", (image.shape[0], image.shape[1]))
        yield path.stem, image, values, np.isfinite(values) & carries_data


def read_map(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Read a map float32 H×W from a file.

    Raises:
        UserError: the file cannot be read, or is not an array of real numbers of that size.
    """
    try:
        values = load_array(path)
    except UserError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise UserError(f"{path}: cannot be read ({reason}); each image needs its map") from error
    if values.shape != size or values.dtype.kind not in "fiu":
        shape = "×".join(map(str, values.shape))
        raise UserError(
            f"{path}: holds {values.dtype} {shape}; give real numbers of the image's size {size[0]}×{size[1]}"
        )
    return values.astype(np.float32)
