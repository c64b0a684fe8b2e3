"""Labeled images to compare models on: written by a run, or in a layout that training reads."""

from collections.abc import Iterator
from pathlib import Path

from deploy.bundle.manifest import Manifest
from deploy.errors import UserError
from deploy.evaluation.labeled_data import naming, read_labeled, require_data
from deploy.evaluation.receipt import Sample
from deploy.files.images import read_mask
from deploy.files.tiff import VOID
from deploy.inference.image_files import read_input
from deploy.inference.preprocess import check_pixels

CLASSES = "classes.json"


def is_training_layout(data: Path) -> bool:
    """Whether a folder is one to train on: `classes.json` says what its masks mean, or it is not split yet."""
    return (data / CLASSES).is_file() or (data / "images").is_dir()


def require_labeled(data: Path, split: str, manifest: Manifest) -> None:
    """Check that a folder has labeled images of a split, and of the classes of a bundle.

    Raises:
        UserError: it has not.
    """
    if not is_training_layout(data):
        require_data(data, split)
        return
    from distill.data.datasets.folder import read_split  # needs torch, which comparing does not otherwise

    _, classes, _ = read_split(data, split)
    names, wanted = ([one.name for one in infos] for infos in (classes, manifest.classes))
    inferred = not (data / CLASSES).is_file() and len(names) == len(wanted)
    if names != wanted and not inferred:
        raise UserError(
            f"{data}: has the classes {', '.join(names)}, the bundle {', '.join(wanted)}; give data of the same "
            f"classes, in the same order in {CLASSES}"
        )


def labeled_samples(data: Path, split: str, manifest: Manifest) -> Iterator[Sample]:
    """The labeled images of a split, their masks decoded as in training where `classes.json` says what they mean.

    Raises:
        UserError: an image or a mask is damaged or does not fit; the message names it.
    """
    if not is_training_layout(data):
        yield from read_labeled(data / split, len(manifest.classes), manifest.ignore_label, manifest.input)
        return
    from distill.data.datasets.folder import read_split  # needs torch

    pairs, _, legend = read_split(data, split)
    for pair in pairs:
        label = legend.ids(read_mask(pair.mask), pair.mask)
        image, known = read_input(pair.image, manifest.input, label.shape)
        with naming(pair.image):
            check_pixels(image, manifest.input)
        if label.shape != image.shape[:2]:
            raise UserError(f"{pair.mask}: has shape {label.shape}, its image {image.shape[:2]}")
        valid = label != VOID
        yield pair.id, image, label, valid if known is None else valid & known
