"""Words about masks that do not hold class ids, and the command that makes them do so."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deploy.errors import UserError

SPLITS = ("train", "val", "test", "calibration")
MOST_COLORS = 8
"""Colors that a message lists."""
MOST_NUMBERS = 32
"""Numbers that the command in a message names."""


def masks_command(folder: Path, keys: Sequence[int | str]) -> str:
    """`edgedistill masks` as it makes a class of each of these numbers or colors, in this order."""
    maps = " ".join(f"--map {key}={index}" for index, key in enumerate(keys[:MOST_NUMBERS]))
    return f"edgedistill masks {folder} NEW_FOLDER {maps}" + " …" * (len(keys) > MOST_NUMBERS)


def whole_folder(folder: Path) -> Path:
    """The folder of all splits that this one is of; itself if it is no split."""
    return folder.parent if folder.name in SPLITS else folder


def holds_colors(path: Path, mask: np.ndarray, folder: Path) -> UserError:
    """What to do about a mask H×W×3 of a labeled folder, where nothing says what its colors mean."""
    codes = _frequent_first(mask)
    hexes = [f"{code:06x}" for code in codes] or ["RRGGBB"]
    entries = [
        f'{{"name": "class {index}", "color": [{code >> 16}, {code >> 8 & 255}, {code & 255}]}}'
        for index, code in enumerate(codes)
    ]
    return UserError(
        f"{path}: the mask holds colors; write {folder / 'classes.json'} with name and color of each class (for"
        f" training, evaluate and compare), or convert the masks: {masks_command(folder, hexes)}"
        + (f"; this mask has [{', '.join(entries)}]" if entries else "")
    )


def _frequent_first(mask: np.ndarray) -> list[int]:
    """The colors of a mask by `codes_of`, the most frequent first; none of too many to be classes."""
    codes, pixels = np.unique(codes_of(mask[..., :3]), return_counts=True)
    return [] if len(codes) > MOST_COLORS else codes[np.argsort(-pixels, kind="stable")].tolist()


def codes_of(colors: np.ndarray) -> np.ndarray:
    """R, G and B, the last axis, as one number each: 0xRRGGBB, int64."""
    return colors.astype(np.int64) @ (65536, 256, 1)
