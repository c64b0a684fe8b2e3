"""Labeled images to compare models on: written by a run, or in a layout that training reads."""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from deploy.bundle.manifest import ClassInfo, Manifest
from deploy.errors import UserError
from deploy.evaluation.labeled_data import (
    INFO,
    other_split,
    read_labeled,
    read_with_data,
    require_data,
    several_classes,
)
from deploy.evaluation.receipt import Sample
from deploy.evaluation.samples import Samples
from deploy.files.images import read_mask
from deploy.files.tiff import VOID
from distill.data.datasets.classes_file import read_classes
from distill.data.datasets.folder import read_split, read_unsplit
from distill.data.datasets.masks import Legend
from distill.data.datasets.pairs import Pair

CLASSES = "classes.json"


def is_training_layout(data: Path, foreground: int | None = None) -> bool:
    """Whether a folder is one to train on: `classes.json` or `foreground` say what its masks mean, or it is not split.

    The masks that a run has written hold class ids, whatever the foreground of others is.
    """
    said = foreground is not None and not (data / INFO).is_file()
    return said or (data / CLASSES).is_file() or (data / "images").is_dir()


def add_foreground(parser: argparse.ArgumentParser) -> None:
    """Add the option for masks that number two classes otherwise than by their ids."""
    parser.add_argument(
        "--foreground",
        type=int,
        metavar="N",
        help="number in masks that means the second of two classes, such as 255 (--data.foreground of training); those "
        "of a run hold class ids",
    )


def require_labeled(data: Path, split: str, manifest: Manifest, foreground: int | None = None) -> None:
    """Check that a folder has labeled images of a split, and of the classes of a bundle.

    Raises:
        UserError: it has not.
    """
    if not is_training_layout(data, foreground):
        require_data(data, split, remedy=other_split(data, split))
        return
    _, classes, _ = read_split(data, split, foreground)
    _require_same_classes(data, classes, manifest)


def _require_same_classes(data: Path, classes: Sequence[ClassInfo], manifest: Manifest) -> None:
    names, wanted = ([one.name for one in infos] for infos in (classes, manifest.classes))
    inferred = not (data / CLASSES).is_file() and len(names) == len(wanted)
    if names != wanted and not inferred:
        raise UserError(
            f"{data}: has the classes {', '.join(names)}, the bundle {', '.join(wanted)}; give data of the same "
            f"classes, in the same order in {CLASSES}"
        )


def labeled_samples(data: Path, split: str, manifest: Manifest, foreground: int | None = None) -> Samples:
    """The labeled images of a split, their masks decoded as in training where something says what they mean.

    Args:
        data: the folder.
        split: name of the split.
        manifest: of the bundle.
        foreground: the number that means the second of two classes (`DataConfig.foreground`).

    Raises:
        UserError: an image or a mask is damaged or does not fit; the message names it.
    """
    if not is_training_layout(data, foreground):
        return read_labeled(data / split, len(manifest.classes), manifest.ignore_label, manifest.input)
    pairs, _, legend = read_split(data, split, foreground)
    return Samples(_of_several_classes(_decoded(pairs, legend, manifest), data, foreground), len(pairs))


def all_labeled_samples(data: Path, manifest: Manifest, foreground: int | None = None) -> Samples:
    """All labeled images of a folder with `images` and `masks`, whatever split training would put them in.

    Without `classes.json` and `foreground` its masks hold the class ids of the bundle.

    Raises:
        UserError: as `labeled_samples`; or the folder has other classes than the bundle.
    """
    pairs, described = read_unsplit(data, foreground)
    if described is None:
        return read_labeled(data, len(manifest.classes), manifest.ignore_label, manifest.input)
    classes, legend = described
    _require_same_classes(data, classes, manifest)
    return Samples(_of_several_classes(_decoded(pairs, legend, manifest), data, foreground), len(pairs))


def _of_several_classes(samples: Iterator[Sample], data: Path, foreground: int | None) -> Iterator[Sample]:
    """`several_classes`, unless `classes.json` or `foreground` says which value means what."""
    settings = read_classes(data / CLASSES)
    said = settings and any(not isinstance(one, str) and one.value is not None for one in settings.classes)
    return samples if said or foreground is not None else several_classes(samples, VOID, data)


def _decoded(pairs: Iterable[Pair], legend: Legend, manifest: Manifest) -> Iterator[Sample]:
    for pair in pairs:
        label = legend.ids(read_mask(pair.mask), pair.mask)
        image, carries_data = read_with_data(pair.image, manifest.input, label.shape)
        if label.shape != image.shape[:2]:
            raise UserError(f"{pair.mask}: has shape {label.shape}, its image {image.shape[:2]}")
        yield pair.id, image, label, (label != VOID) & carries_data
