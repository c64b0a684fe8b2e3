"""Your own data: a folder of images and a folder of masks.

    {train,val,test}/images/STEM.*  {train,val,test}/masks/STEM.*      your split (without test/, val is used), or
    images/STEM.*  masks/STEM.*                                        split 70/15/15 by a hash of the stem
    classes.json                                                       optional

Images are png, jpg, bmp, webp, tif or npy: uint8, or uint16 or float32 (NaN = no data), all with the same channels.
A TIFF may have any number of bands of any type, and define a no-data value (`deploy.files.tiff`). Masks hold class ids
(255 = void) or colors.

`classes.json` is a list of class names or of entries such as `{"name": "water", "color": [0, 0, 255], "value": 255}`,
where `color` and `value` (the number in the mask; default: the position in the list) are optional. Or it is an object
with such a list as `classes`, and optionally `ignore` (another value in the masks that means void) and `channels`
(names of the image channels; default: the band names of the first TIFF). Without the file, classes are the ids in the
masks. Where every class has a color, colors decide in palette images, too, as each file may number them otherwise.

An image without a mask stops the run; of masks without an image a warning gives the number and the first names. All
masks are read before anything else: a class without a pixel in the training masks stops the run, too.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from deploy.bundle.manifest import ClassInfo
from deploy.errors import UserError
from deploy.evaluation.labeled_data import other_split
from deploy.evaluation.mask_mistakes import holds_colors, masks_command
from deploy.files.images import read_image, read_mask
from deploy.files.tiff import band_names
from deploy.visualize import palette
from distill.config import DataConfig
from distill.data.datasets.classes_file import ClassesFile, describe_classes, read_classes
from distill.data.datasets.mask_survey import MaskSurvey, check_classes, survey_masks
from distill.data.datasets.masks import Legend, shorten
from distill.data.datasets.pairing import other_folder, pairs_in
from distill.data.datasets.pairs import RGB_CHANNELS, Pair, PairReader, find_root
from distill.data.sample import IGNORE, MAX_CLASSES
from distill.data.splits import Splits

GET = "it should hold images/ and masks/, or train/, val/ and test/ with these two in each"
UPPER_BOUNDS = {"train": 0.70, "val": 0.85, "test": 1.0}
"""Upper bound of the hashes of each split, on a scale of 0..1."""


def open_folder(config: DataConfig, seed: int) -> Splits:
    """The data in `config.root`. `seed` is not used: the split is the same in every run.

    If there is no `train/`, a hash of the stem decides the split of an image, so adding files never moves others.

    Raises:
        UserError: the folder, its masks or `classes.json` are not as described above.
    """
    root = find_root(config, GET)
    splits, classes, legend, settings, surveys = _read(root, config.foreground)
    check_classes(
        root, [info.name for info in classes], legend, surveys["train"], config.allow_absent_classes
    )
    pair = splits["train"][0]
    first = read_image(pair.image, size=read_mask(pair.mask).shape[:2])
    optical = first.dtype == np.uint8
    channels = name_channels(
        settings.channels if settings else None, first.shape[2], splits["train"][0].image
    )
    train, val, test = (
        PairReader(splits[split], legend, len(channels), optical, names=channels) for split in UPPER_BOUNDS
    )
    if splits["test"] is splits["val"]:
        test = val
    return Splits("folder", classes, channels, optical, train=train, val=val, test=test)


def read_folder(
    root: Path,
) -> tuple[dict[str, tuple[Pair, ...]], tuple[ClassInfo, ...], Legend, ClassesFile | None]:
    """Find the files of a labeled folder, and its classes.

    Returns:
        The pairs of each split, the classes, how masks encode them, and `classes.json` if there is one.

    Raises:
        UserError: the folder, its masks or `classes.json` are not as described above.
    """
    return _read(root, None)[:4]


def read_split(
    root: Path, split: str, foreground: int | None = None
) -> tuple[tuple[Pair, ...], tuple[ClassInfo, ...], Legend]:
    """The pairs of one split, the classes, and how masks encode them; other splits may be missing.

    Args:
        root: the folder.
        split: name of the split; never another one in its place.
        foreground: as `DataConfig.foreground`.

    Raises:
        UserError: there is no such split, or the folder is not as described above.
    """
    described = _given(root, foreground)
    if (root / split / "images").is_dir():
        if described:
            return pairs_in(root / split), *described
    elif not (root / "images").is_dir() and (remedy := other_split(root, split)):
        raise UserError(f"{root}: has no split {split}; {remedy}")
    splits, classes, legend, *_ = _read(root, foreground)
    if split not in splits:
        raise UserError(f"{root}: has no split {split}; it has {', '.join(splits)}")
    return splits[split], classes, legend


def read_unsplit(
    root: Path, foreground: int | None = None
) -> tuple[tuple[Pair, ...], tuple[tuple[ClassInfo, ...], Legend] | None]:
    """All pairs of `images/` and `masks/`, and what `classes.json` and `foreground` say of classes and masks, if any.

    Raises:
        UserError: the folder or `classes.json` is not as described above.
    """
    return pairs_in(root), _given(root, foreground)


def _given(root: Path, foreground: int | None) -> tuple[tuple[ClassInfo, ...], Legend] | None:
    """The classes and how masks encode them, as far as the user says it; None: masks have to be read."""
    settings = read_classes(root / "classes.json")
    if foreground is not None:
        return _binary(settings, foreground, root)
    return describe_classes(settings) if settings else None


def _read(
    root: Path, foreground: int | None
) -> tuple[
    dict[str, tuple[Pair, ...]],
    tuple[ClassInfo, ...],
    Legend,
    ClassesFile | None,
    dict[str, MaskSurvey],
]:
    """`read_folder`, with what the masks of each split hold, and with `foreground` as the second class."""
    splits = _find_pairs(root)
    settings, given = read_classes(root / "classes.json"), _given(root, foreground)
    if given is None:
        surveys = survey_masks(splits, None)
        classes, legend = _infer(surveys, root)
        # the numbers are the ids: nothing is left for a second look
        known = {split: replace(one, classes=one.values) for split, one in surveys.items()}
        return splits, classes, legend, settings, known
    classes, legend = given
    return splits, classes, legend, settings, survey_masks(splits, legend)


def _binary(
    settings: ClassesFile | None, foreground: int, root: Path
) -> tuple[tuple[ClassInfo, ...], Legend]:
    """Two classes: 0, and the number of the foreground."""
    classes, legend = describe_classes(settings or ClassesFile(["background", "foreground"]))
    if len(classes) != 2 or legend.values != (0, 1):
        raise UserError(
            f"foreground {foreground}: is for two classes without values of their own, but"
            f" {root / 'classes.json'} names {len(classes)}, with the values {shorten(legend.values)}"
        )
    ignore = tuple(value for value in legend.ignore if value != foreground)
    return classes, Legend((0, foreground), ignore)


def _find_pairs(root: Path) -> dict[str, tuple[Pair, ...]]:
    """The pairs of each split."""
    if (root / "images").is_dir():
        return _split_by_hash(pairs_in(root), root)
    for split in ("train", "val"):
        if not (root / split / "images").is_dir():
            remedy = other_folder(root / split, "images") or f"{root} {GET.removeprefix('it ')}"
            raise UserError(f"{root / split / 'images'}: no such folder; {remedy}")
    splits = {split: pairs_in(root / split) for split in ("train", "val")}
    return splits | {"test": pairs_in(root / "test") if (root / "test").is_dir() else splits["val"]}


def _split_by_hash(pairs: tuple[Pair, ...], root: Path) -> dict[str, tuple[Pair, ...]]:
    splits: dict[str, list[Pair]] = {split: [] for split in UPPER_BOUNDS}
    for pair in pairs:
        place = int.from_bytes(hashlib.sha256(pair.id.encode()).digest()[:8], "big") / 2**64
        splits[next(split for split, end in UPPER_BOUNDS.items() if place < end)].append(pair)
    for split, chosen in splits.items():
        if not chosen:
            raise UserError(
                f"{root}: {len(pairs)} images are too few to split at random ({split} got none); "
                "lay them out as train/, val/ and test/"
            )
    return {split: tuple(chosen) for split, chosen in splits.items()}


def _infer(surveys: dict[str, MaskSurvey], root: Path) -> tuple[tuple[ClassInfo, ...], Legend]:
    """Classes from the ids that occur in the masks of all splits."""
    found: set[int] = set()
    for survey in surveys.values():
        if survey.colored is not None:
            raise holds_colors(survey.colored, read_mask(survey.colored), root)
        found.update(survey.values)
    ids = sorted(found - {IGNORE})
    if len(ids) < 2 or ids != list(range(len(ids))):
        raise _no_classes(sorted(found), root)
    if len(ids) > MAX_CLASSES:
        raise UserError(f"{root}: the masks hold {len(ids)} classes; a bundle has at most {MAX_CLASSES}")
    colors = palette(len(ids))
    return tuple(ClassInfo(f"class_{i}", colors[i]) for i in ids), Legend(values=tuple(ids))


def _no_classes(values: Sequence[int], root: Path) -> UserError:
    """What to do about masks that hold these numbers."""
    if len(values) < 2:
        void = ", which is void" if values == [IGNORE] else ""
        return UserError(
            f"{root}: all masks hold the single id {shorten(values)}{void}; segmentation needs two or more; see"
            " whether these are the masks that were drawn, and how they were exported"
        )
    binary = len(values) == 2 and values[0] == 0
    given = f", or give --data.foreground {values[-1]} (evaluate, compare: --foreground)" if binary else ""
    may_be_void = " (without 255, if that is void)" if IGNORE in values and len(values) > 2 else ""
    return UserError(
        f"{root}: the masks hold the ids {shorten(values, 12)}, but classes count from 0 and 255 is void; write"
        f" {root / 'classes.json'} with name and value of each class{_example(values)}{given}, or convert the"
        f" masks: {masks_command(root, values)}{may_be_void}"
    )


def _example(values: Sequence[int]) -> str:
    """`classes.json` to paste, where it is short."""
    if len(values) > 4:
        return ""
    names = ["background", "foreground"] if len(values) == 2 else [f"class_{value}" for value in values]
    entries = (f'{{"name": "{name}", "value": {value}}}' for name, value in zip(names, values, strict=True))
    return f", such as [{', '.join(entries)}]"


def name_channels(names: tuple[str, ...] | None, count: int, image: Path) -> tuple[str, ...]:
    """Names of the channels of a data set.

    Args:
        names: as given; None: those of the bands of a TIFF, else R, G and B, or numbers.
        count: channels of the first image.
        image: its file.

    Raises:
        UserError: there are other numbers of names and channels.
    """
    if names is not None:
        if len(names) != count:
            raise UserError(f"{image}: has {count} channels, but names of {len(names)} ({', '.join(names)})")
        return names
    return (
        band_names(image)
        or {1: ("grey",), 3: RGB_CHANNELS}.get(count)  # codespell:ignore grey - stored in checkpoints
        or tuple(f"band_{i}" for i in range(count))
    )
