"""One look at all masks of a folder before anything is trained: what they hold, and whether they can be meant so."""

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
from PIL import Image

from deploy.errors import UserError
from deploy.files.images import read_mask
from deploy.heartbeat import counted, working
from distill.data.datasets.masks import Legend, shorten
from distill.data.datasets.pairs import Pair
from distill.data.datasets.palettes import PaletteOrder, palette_of
from distill.data.sample import IGNORE

_PICTURES = ("PNG", "JPEG", "BMP", "WEBP")


@dataclass(frozen=True)
class MaskSurvey:
    """What the masks of a split hold."""

    values: Counter[int]
    """Pixels of each stored number; of numbers only, not of colors."""
    classes: Counter[int]
    """Pixels of each class id, 255 = void; empty without a legend."""
    colored: Path | None
    """The first mask that holds colors."""
    files: int


def survey_masks(splits: Mapping[str, Sequence[Pair]], legend: Legend | None) -> dict[str, MaskSurvey]:
    """Read all masks of all splits once; lines tell how far it is.

    Args:
        splits: the pairs of each split; a split that is another one is read once.
        legend: the meaning of the masks; None if it is to be inferred.

    Raises:
        UserError: a mask cannot be read, is lossy, is of another size than its image, holds what is not in the legend,
            or numbers its palette otherwise than the masks before.
    """
    order, distinct = PaletteOrder(), {id(pairs): pairs for pairs in splits.values()}
    masks = counted(chain.from_iterable(distinct.values()), sum(map(len, distinct.values())))
    with working("reading the masks"):
        done = {key: _survey(islice(masks, len(pairs)), legend, order) for key, pairs in distinct.items()}
    return {split: done[id(pairs)] for split, pairs in splits.items()}


def check_classes(
    root: Path, names: Sequence[str], legend: Legend, train: MaskSurvey, may_lack: bool = False
) -> None:
    """Check that each class has a pixel in the training masks.

    Raises:
        UserError: one has none; the message says how much is void, and what to do.
    """
    absent = [name for index, name in enumerate(names) if not train.classes[index]]
    if not absent or may_lack:
        return
    total = train.classes.total()
    void = [value for value in {IGNORE, *legend.ignore} if train.values[value] and value not in legend.values]
    shares = "".join(f", and {v}, which is void, is {train.values[v] / total:.0%} of them" for v in void)
    remedy = "if that is meant, give --data.allow-absent-classes, else mend the masks or classes.json"
    if void and len(names) == 2:
        remedy = (
            f"if {void[0]} is {absent[0]}, give --data.foreground {void[0]}, or convert the masks: edgedistill masks"
            f" {root} NEW_FOLDER --map {void[0]}=1; {remedy}"
        )
    raise UserError(
        f"{root}: no pixel of the {train.files} training masks is {shorten(absent)}{shares}; {remedy}"
    )


def _survey(pairs: Iterable[Pair], legend: Legend | None, order: PaletteOrder) -> MaskSurvey:
    values: Counter[int] = Counter()
    classes: Counter[int] = Counter()
    colored, files = None, 0
    for pair in pairs:
        files += 1
        refuse_lossy(pair.mask)
        mask = read_mask(pair.mask)
        _check_size(pair, mask)
        if legend is not None:
            _count(legend.ids(mask, pair.mask), classes)
        if mask.ndim == 3:
            colored = colored or pair.mask
            continue
        used = _count(mask, values)
        palette = palette_of(pair.mask)
        if palette is not None and (legend is None or legend.by_palette(mask, pair.mask) is None):
            void = (IGNORE, *(legend.ignore if legend else ()))
            order.check(used[~np.isin(used, void)], palette, pair.mask)
    return MaskSurvey(values, classes, colored, files)


def _count(numbers: np.ndarray, into: Counter[int]) -> np.ndarray:
    found, pixels = np.unique(numbers, return_counts=True)
    into.update(dict(zip(found.tolist(), pixels.tolist(), strict=True)))
    return found


def refuse_lossy(path: Path) -> None:
    """Refuse a mask whose compression changes numbers.

    Raises:
        UserError: it is a JPEG or a lossy WebP, whatever its suffix.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(12 if path.suffix.lower() == ".npy" else 2**16)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    is_webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    if data[:3] == b"\xff\xd8\xff" or (is_webp and b"VP8L" not in data):
        kind = "lossy WebP" if is_webp else "JPEG"
        raise UserError(
            f"{path}: is a {kind}, whose compression changes labels; export the masks as PNG from where they were drawn"
        )


def _check_size(pair: Pair, mask: np.ndarray) -> None:
    """Compare with the header of the image, where it is a picture; other images are compared when they are read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(pair.image, formats=_PICTURES) as image:
                width, height = image.size
    except Exception:  # an array, a TIFF, or damaged: reading it tells
        return
    if mask.shape[:2] != (height, width):
        raise UserError(
            f"{pair.mask}: the label is {mask.shape[0]}×{mask.shape[1]} pixels but the image of {pair.id} is"
            f" {height}×{width}; give a mask of the size of its image"
        )
