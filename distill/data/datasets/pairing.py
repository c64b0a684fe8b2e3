"""The images and masks of a folder, matched by the stems of their names."""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from deploy.errors import UserError, warn
from deploy.files.images import IMAGE_SUFFIXES, list_images
from distill.data.datasets.masks import shorten
from distill.data.datasets.pairs import Pair, checked_pairs

_BESIDE_IMAGES = (
    ".db",
    ".ini",
    ".xml",
    ".tfw",
    ".pgw",
    ".jgw",
    ".wld",
    ".prj",
    ".ovr",
    ".txt",
    ".md",
    ".json",
)
"""Files that programs and people put beside images: no word about them."""


_ALSO_CALLED = {
    "images": ("image", "img", "imgs", "photos", "jpegimages", "pictures"),
    "masks": ("mask", "labels", "label", "annotations", "annotation", "gt", "ground_truth", "segmentation"),
}
"""Other names of the two folders, in lower case."""
_MASK_WORDS = ("mask", "label", "gt", "seg", "annot")
_BETWEEN = ("", "-", "_", ".", " ")


def other_folder(folder: Path, kind: str) -> str:
    """What to do where a folder has no `images/` or `masks/`, as far as what it has tells."""
    beside = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    found = next((name for name in beside if name.lower() in _ALSO_CALLED[kind]), None)
    if found:
        return f"rename {found}/ beside it to {kind}/"
    if kind == "masks" and "images" in beside:
        images = [path.stem for path in list_images(folder / "images")]
        among = [name for stem in images if (name := _named_after(stem, images))]
        if among:
            return f"move {among[0]} and its like from images/ to masks/, and rename them as their images"
    return f"each of {folder / 'images'} needs a mask of its name in it" if kind == "masks" else ""


def _named_after(stem: str, others: Iterable[str]) -> str | None:
    """The one that is named as masks of other tools are: a_mask or mask_a for a."""
    for name in others:
        before, found, after = name.partition(stem)
        apart = found and before[-1:] in _BETWEEN and after[:1] in _BETWEEN
        if apart and any(word in f"{before}{after}".lower() for word in _MASK_WORDS):
            return name
    return None


def pairs_in(folder: Path) -> tuple[Pair, ...]:
    """The pairs of `images/` and `masks/`, sorted by name; letters with accents match in both Unicode forms.

    Warns of masks without an image, and of files that are no images.

    Raises:
        UserError: images without a mask, or two files with the same stem; the message counts and names them.
    """
    images, masks = (_by_stem(folder / kind, kind) for kind in ("images", "masks"))
    missing = [images[stem].name for stem in images if stem not in masks]
    if missing:
        first = next(stem for stem in images if stem not in masks)
        raise UserError(
            f"image {images[first]} has no mask: {folder / 'masks' / first}.png does not exist; {len(missing)} of"
            f" {len(images)} images have none ({shorten(missing, 3)}): {_remedy(first, masks)}"
        )
    unused = [masks[stem].name for stem in masks if stem not in images]
    if unused:
        warn(f"{folder / 'masks'}: {_count(unused, 'mask')} without an image, not used: {shorten(unused, 3)}")
    return checked_pairs((Pair(stem, path, masks[stem]) for stem, path in images.items()), folder / "images")


def _remedy(stem: str, masks: Mapping[str, Path]) -> str:
    name = _named_after(stem, masks)
    if name:
        return f"{masks[name].name} seems to be its mask: rename it as the image, and others likewise"
    return "add their masks, or move the images away"


def _by_stem(folder: Path, kind: str) -> dict[str, Path]:
    if not folder.is_dir() and (remedy := other_folder(folder.parent, kind)):
        raise UserError(f"{folder}: no such folder; {remedy}")
    paths = list_images(folder)
    warn_of_others(folder)
    named = sorted((unicodedata.normalize("NFC", path.stem), path) for path in paths)
    for (before, path), (after, other) in pairwise(named):
        if before == after:
            problem = "would have the same mask" if kind == "images" else "are masks of the same image"
            raise UserError(f"{path} and {other.name} {problem}; rename or remove one of them")
    return dict(named)


def warn_of_others(folder: Path) -> None:
    """Warn of files of kinds that are neither read as images nor usual beside them."""
    others = sorted(
        path.name
        for path in folder.iterdir()
        if path.suffix.lower() not in (*IMAGE_SUFFIXES, *_BESIDE_IMAGES)
        and not path.name.startswith(".")
        and path.is_file()
    )
    if others:
        warn(
            f"{folder}: {_count(others, 'file')} of a kind that is not read, not used: {shorten(others, 3)}"
            f" (read are {', '.join(IMAGE_SUFFIXES)})"
        )


def _count(items: Sequence[str], noun: str) -> str:
    return f"{len(items)} {noun}{'s' * (len(items) != 1)}"
