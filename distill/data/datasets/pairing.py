"""The images and masks of a folder, matched by the stems of their names."""

import unicodedata
from collections.abc import Sequence
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
            f" {len(images)} images have none ({shorten(missing, 3)}): add their masks, or move the images away"
        )
    unused = [masks[stem].name for stem in masks if stem not in images]
    if unused:
        warn(f"{folder / 'masks'}: {_count(unused, 'mask')} without an image, not used: {shorten(unused, 3)}")
    return checked_pairs((Pair(stem, path, masks[stem]) for stem, path in images.items()), folder / "images")


def _by_stem(folder: Path, kind: str) -> dict[str, Path]:
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
