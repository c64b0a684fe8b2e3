"""Labeled images in a folder that a device can read: they calibrate, select and verify a model.

A run writes three sets beside its bundles; any folder with the same layout can be used:

    data/calibration/images/     from the training split
    data/val/images/, masks/     to choose the layers that stay in float
    data/test/images/, masks/    to measure the result
    data/data.json               data set and split

Images are PNG (uint8) or .npy; masks are PNG of class ids, with the ignore label for unknown pixels. Other tasks have
another folder instead of `masks/`: `grasps/` (`deploy.tasks.grasp.labeled`) or `values/`
(`deploy.tasks.regression.labeled`).
"""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np

from deploy.bundle.manifest import InputSpec
from deploy.errors import UserError
from deploy.evaluation.mask_mistakes import holds_colors, masks_command, whole_folder
from deploy.evaluation.receipt import Sample
from deploy.evaluation.samples import Samples
from deploy.files.atomic import write_json
from deploy.files.images import list_images, read_image, read_mask, write_png
from deploy.files.json_files import read_json
from deploy.files.npy import save_image
from deploy.inference.image_files import read_input
from deploy.inference.preprocess import check_pixels, prepare, resize_nearest, to_network

DATA = "data"
INFO = "data.json"


class DataInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of `data.json`."""

    dataset: str
    test: str
    """The split that `test/` is taken from."""
    images: int
    """Number of images written to `test/`; 0 = unknown."""


def data_folder(bundle: Path) -> Path:
    """The folder in which a run writes data for its bundles."""
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
    """Write an image losslessly as `base` with the suffix .png (uint8 with 1 or 3 channels) or .npy.

    Returns:
        The path of the file.
    """
    if image.dtype == np.uint8 and image.shape[2] in (1, 3):
        path = base.with_name(f"{base.name}.png")
        write_png(path, image)
        return path
    path = base.with_name(f"{base.name}.npy")
    save_image(path, image)
    return path


def read_labeled(
    folder: Path, num_classes: int, ignore_label: int = 255, spec: InputSpec | None = None
) -> Samples:
    """Read the samples of a folder.

    Args:
        folder: has `images` and `masks`.
        num_classes: number of classes.
        ignore_label: id of unlabeled pixels.
        spec: checks the images, if given, and says which pixels carry no data: these are not valid.

    Returns:
        Samples in the order of their names.

    Raises:
        UserError: the folder, an image or a mask is missing or damaged, an image does not fit `spec`, or a mask differs
            in size from its image or has an id that is not a class; the message names the file. Or, after the last one,
            as `several_classes`, unless a run has written the folder.
    """
    samples = _samples(folder, num_classes, ignore_label, spec)
    is_of_a_run = any((place / INFO).is_file() for place in (folder, folder.parent))
    checked = samples if is_of_a_run else several_classes(samples, ignore_label, folder)
    return Samples(checked, len(list_images(folder / "images")))


def several_classes(samples: Iterable[Sample], ignore_label: int, folder: Path) -> Iterator[Sample]:
    """Pass samples on.

    Raises:
        UserError: after the last one, if all masks held a single class and void, as masks of 0 and 255 do when 255 is
            meant as a class: void counts nowhere, and any score would be that of the one class.
    """
    seen: set[int] = set()
    for sample in samples:
        seen.update(np.unique(sample[2]).tolist())
        yield sample
    if len(seen) == 2 and ignore_label in seen:
        raise UserError(
            f"{folder}: the masks hold the ids {min(seen)} and {ignore_label}, but {ignore_label} is void; convert the"
            f" masks ({masks_command(whole_folder(folder), sorted(seen))}), or give --foreground {ignore_label} of"
            " evaluate and compare"
        )


def _samples(folder: Path, num_classes: int, ignore_label: int, spec: InputSpec | None) -> Iterator[Sample]:
    masks = {path.stem: path for path in list_images(folder / "masks")}
    for path in list_images(folder / "images"):
        if path.stem not in masks:
            raise UserError(f"{folder / 'masks' / path.stem}.png: is missing; {path.name} needs a mask")
        label, carries_data = read_mask(masks[path.stem]), None
        if spec:
            image, carries_data = read_with_data(path, spec, label.shape[:2])
        else:
            image = read_image(path, size=label.shape[:2])
        if label.ndim == 3:
            raise holds_colors(masks[path.stem], label, whole_folder(folder))
        if label.shape != image.shape[:2]:
            raise UserError(
                f"{masks[path.stem]}: has shape {label.shape}, its image {image.shape[:2]}; give one id per pixel"
            )
        valid = label != ignore_label
        wrong = label[valid & ((label < 0) | (label >= num_classes))]
        if wrong.size:
            raise UserError(
                f"{masks[path.stem]}: has id {wrong[0]}, but the bundle has {num_classes} classes;"
                f" use ids below {num_classes}, or {ignore_label} for unlabeled pixels"
            )
        yield path.stem, image, label, valid if carries_data is None else valid & carries_data


def read_with_data(
    path: Path, spec: InputSpec, size: tuple[int, ...] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Read an image to score a model on.

    Args:
        path: the file.
        spec: the network's input, which the image must fit.
        size: as `deploy.files.images.read_image` takes it.

    Returns:
        The image H×W×C as it is, and bool H×W: the pixels that carry data; no others are scored.

    Raises:
        UserError: it cannot be read or does not fit; the message names the file.
    """
    image, known = read_input(path, spec, size)
    with naming(path):
        _, carries_data = check_pixels(image, spec)
    return image, carries_data if known is None else carries_data & known


def read_info(folder: Path) -> DataInfo:
    """Read `data.json`; if it does not exist, the data set has the name of the folder.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / INFO
    if not path.is_file():
        return DataInfo(folder.resolve().name, "test", 0)
    try:
        return read_json(path, DataInfo)
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error}); delete it, or create the folder again") from error


def write_info(folder: Path, info: DataInfo) -> None:
    """Write `data.json`."""
    write_json(folder / INFO, info)


class CalibrationImages:
    """The images of a folder as network inputs; can be iterated several times.

    Each item is a pair: the input for one image with a batch axis, in the network's dtype and layout, and its valid
    pixels, bool H×W at the size of the network. If the bundle tiles larger images, the center of each is used.
    """

    def __init__(self, folder: Path, spec: InputSpec) -> None:
        self._paths, self._spec = list_images(folder), spec

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for path in self._paths:
            image, known = read_input(path, self._spec)
            with naming(path):
                ready = network_input(image, self._spec, known)
            yield ready


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Prefix the messages of `UserError` in this context with the path of a file."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def network_input(
    image: np.ndarray, spec: InputSpec, known: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The network input for one image, with a batch axis, and its valid pixels, bool H×W at the size of the network.

    `known` is bool at the size of the image: pixels with data, where the image itself does not say so.
    """
    height, width = spec.height, spec.width
    if spec.resize == "tile" and image.shape[0] >= height and image.shape[1] >= width:
        top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        middle = slice(top, top + height), slice(left, left + width)
        pixels, valid = check_pixels(image, spec)
        valid = valid if known is None else valid & known
        return to_network(pixels[middle], spec)[None], valid[middle]
    prepared, valid = prepare(image, spec)
    return prepared[None], resize_nearest(valid if known is None else valid & known, height, width)


def other_split(data: Path, split: str, truth: str = "masks") -> str:
    """What to do where a folder lacks a split but has another one; "" if it has none."""
    known = (name for name in ("val", "test", "train") if name != split)
    found = [name for name in known if all((data / name / kind).is_dir() for kind in ("images", truth))]
    return f"give --split {found[0]}" if found else ""


def require_data(data: Path, *splits: str, truth: str = "masks", remedy: str = "") -> None:
    """Check that a folder has labeled data; warn if `test/` has fewer images than were written to it.

    Args:
        data: the folder.
        splits: the required ones of "calibration", "val" and "test".
        truth: the folder beside `images` in "val" and "test".
        remedy: what to do where one is missing; default: give another folder as --data.

    Raises:
        UserError: a folder is missing, or `data.json` is damaged.
    """
    info = read_info(data)
    kinds = {split: ("images",) if split == "calibration" else ("images", truth) for split in splits}
    needed = ", ".join(f"{split}/{kind}" for split in splits for kind in kinds[split])
    for split in splits:
        for path in (data / split / kind for kind in kinds[split]):
            if not path.is_dir():
                raise UserError(
                    f"{path}: no such folder, so there are no images for calibration or measurement;"
                    f" {remedy or f'give --data FOLDER with {needed}'}"
                )
            found = len(list_images(path)) if path.name in ("images", "masks") else info.images
            if path == data / "test" / "images" and found < info.images:
                message = f"{path}: has only {found} of the {info.images} images that were written to it"
                warnings.warn(message, RuntimeWarning, stacklevel=2)
