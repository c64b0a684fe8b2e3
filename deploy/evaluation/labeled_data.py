"""Labeled images in a folder, as a device can read them: what a model is calibrated with, chosen by, and proved on.

A run writes three beside its bundles; any folder of the same layout will do:

    data/calibration/images/     from the training split
    data/val/images/, masks/     to choose what stays in float
    data/test/images/, masks/    to measure the result
    data/data.json               what they are taken from

Images are PNG (uint8) or .npy; masks are PNG of class ids, with the ignore label where nothing is known. For grasps
there is `grasps/` instead of `masks/` (`deploy.tasks.grasp.labeled`).
"""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np

from deploy.bundle.manifest import InputSpec
from deploy.errors import UserError
from deploy.evaluation.receipt import Sample
from deploy.files.atomic import atomic_write, write_json
from deploy.files.images import list_images, read_mask, write_png
from deploy.files.tiff import read_bands
from deploy.inference.preprocess import check_pixels, prepare, resize_nearest, to_network

DATA = "data"
INFO = "data.json"


class DataInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the folders hold."""

    dataset: str
    test: str
    """The split that `test/` is taken from."""
    images: int
    """How many images `test/` was given; 0 where nobody counted."""


def data_folder(bundle: Path) -> Path:
    """Where a run leaves data for its bundles."""
    return bundle.resolve().parent / DATA


def write_labeled(folder: Path, samples: Iterable[Sample], ignore_label: int = 255) -> int:
    """Write samples as `folder/images` and `folder/masks`, and return how many."""
    count = 0
    for index, (name, image, label, valid) in enumerate(samples):
        stem = f"{index:05d}-{Path(name).name}"
        write_image(folder / "images" / stem, image)
        write_png(folder / "masks" / f"{stem}.png", np.where(valid, label, ignore_label).astype(np.uint8))
        count += 1
    return count


def write_image(base: Path, image: np.ndarray) -> Path:
    """Write an image as the file, `base` with a suffix, that `read_image` gives back unchanged."""
    if image.dtype == np.uint8 and image.shape[2] in (1, 3):
        path = base.with_name(f"{base.name}.png")
        write_png(path, image)
        return path
    path = base.with_name(f"{base.name}.npy")
    with atomic_write(path) as file:
        np.save(file, image)
    return path


def read_labeled(
    folder: Path, num_classes: int, ignore_label: int = 255, spec: InputSpec | None = None
) -> Iterator[Sample]:
    """The samples of a folder, in the order of their names.

    Raises `UserError` naming the file where the folder, an image or a mask is missing or damaged, the image is none
    that `spec` allows, the mask has another size than its image, or holds an id that is no class.
    """
    masks = {path.stem: path for path in list_images(folder / "masks")}
    for path in list_images(folder / "images"):
        if path.stem not in masks:
            raise UserError(f"{folder / 'masks' / path.stem}.png: is missing, the mask of {path.name}")
        image, label = read_bands(path), read_mask(masks[path.stem])
        if spec:
            with naming(path):
                check_pixels(image, spec)
        if label.ndim != 2 or label.shape != image.shape[:2]:
            raise UserError(
                f"{masks[path.stem]}: has shape {label.shape}, its image {image.shape[:2]}; give one id a pixel"
            )
        valid = label != ignore_label
        wrong = label[valid & ((label < 0) | (label >= num_classes))]
        if wrong.size:
            raise UserError(f"{masks[path.stem]}: holds id {wrong[0]}, the bundle has {num_classes} classes")
        yield path.stem, image, label, valid


def read_info(folder: Path) -> DataInfo:
    """What `folder` was taken from; of a folder without `data.json` only its name is known."""
    path = folder / INFO
    if not path.is_file():
        return DataInfo(folder.resolve().name, "test", 0)
    try:
        return msgspec.json.decode(path.read_bytes(), type=DataInfo)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is damaged ({error}); delete it, or make the folder again") from error


def write_info(folder: Path, info: DataInfo) -> None:
    """Write `data.json`."""
    write_json(folder / INFO, info)


class CalibrationImages:
    """The images of a folder as network inputs, to be iterated any number of times.

    Yields the input of one image with its batch axis, in the network's dtype and layout, and bool H×W at the size of
    the network: which of its pixels carry data. Where the bundle tiles larger images, the middle of each is taken.
    """

    def __init__(self, folder: Path, spec: InputSpec) -> None:
        self._paths, self._spec = list_images(folder), spec

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for path in self._paths:
            image = read_bands(path)
            with naming(path):
                ready = network_input(image, self._spec)
            yield ready


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of the user name the file."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def network_input(image: np.ndarray, spec: InputSpec) -> tuple[np.ndarray, np.ndarray]:
    """One image as the network's input with a batch axis, and which of its pixels H×W carry data."""
    height, width = spec.height, spec.width
    if spec.resize == "tile" and image.shape[0] >= height and image.shape[1] >= width:
        top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        middle = slice(top, top + height), slice(left, left + width)
        pixels, valid = check_pixels(image, spec)
        return to_network(pixels[middle], spec)[None], valid[middle]
    prepared, valid = prepare(image, spec)
    return prepared[None], resize_nearest(valid, height, width)


def require_data(data: Path, *splits: str, truth: str = "masks") -> None:
    """Raise `UserError` unless the folder holds these of "calibration", "val" and "test", or for a damaged `data.json`.

    `truth` is the folder beside `images` in the latter two. Warns of a `test/` with fewer images than were written to
    it.
    """
    info = read_info(data)
    for split in splits:
        kinds = ("images",) if split == "calibration" else ("images", truth)
        for path in (data / split / kind for kind in kinds):
            if not path.is_dir():
                raise UserError(
                    f"{path}: no such folder, so there is nothing to calibrate with or to measure on;"
                    f" give --data FOLDER with calibration/images, val/ and test/ (images and {truth})"
                )
            found = len(list_images(path)) if path.name in ("images", "masks") else info.images
            if path == data / "test" / "images" and found < info.images:
                message = f"{path}: holds {found} of the {info.images} images that were written to it"
                warnings.warn(message, RuntimeWarning, stacklevel=2)
