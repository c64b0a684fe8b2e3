"""What the numbers or colors in label files mean. `deploy.files.images.read_mask` reads the files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.errors import UserError
from distill.data.sample import IGNORE

RGB = tuple[int, int, int]


@dataclass(frozen=True)
class Legend:
    """How the label files of a data set spell its classes."""

    values: tuple[int, ...]
    """Stored value of each class."""
    ignore: tuple[int, ...] = ()
    """Stored values that mean void; 255 does too unless it is the value of a class."""
    colors: tuple[RGB, ...] = ()
    """Color of each class, for files that hold colors; empty where none may."""
    ignore_colors: tuple[RGB, ...] = ()

    def ids(self, mask: np.ndarray, path: Path) -> np.ndarray:
        """Class ids of what `read_mask` read from `path`: int64 H×W, 255 at void.

        Raises UserError naming the file and what it holds beyond the legend.
        """
        if mask.ndim == 3:
            return self._from_colors(mask, path)
        targets = dict.fromkeys((IGNORE, *self.ignore), IGNORE) | {v: i for i, v in enumerate(self.values)}
        ids = _look_up(mask, targets)
        if (ids < 0).any():
            found = shorten(np.unique(mask[ids < 0]).tolist())
            raise UserError(
                f"{path}: label id {found} is out of range for {len(self.values)} classes "
                f"(known ids: {shorten(self.values, 25)}; void: {shorten(sorted({*self.ignore, IGNORE}), 25)})"
            )
        return ids

    def _from_colors(self, mask: np.ndarray, path: Path) -> np.ndarray:
        if not self.colors:
            raise UserError(
                f"{path}: the mask holds colors, not class ids; give every class its color in classes.json"
            )
        targets = {_code(color): IGNORE for color in self.ignore_colors}
        targets |= {_code(color): index for index, color in enumerate(self.colors)}
        ids = _look_up(mask.astype(np.int64) @ _CODE, targets)
        if (ids < 0).any():
            row, column = np.argwhere(ids < 0)[0]
            color = tuple(mask[row, column].tolist())
            raise UserError(
                f"{path}: color {color} at row {row}, column {column} is none of the {len(self.colors)} classes'"
            )
        return ids


_CODE = np.array([65536, 256, 1])
"""R, G, B as one number."""


def _code(color: RGB) -> int:
    return int(np.array(color) @ _CODE)


def _look_up(values: np.ndarray, targets: dict[int, int]) -> np.ndarray:
    """`targets` of each value, int64; -1 where there is none."""
    if values.dtype == np.uint8:  # a table of all values is the fastest
        return _search(np.arange(256), targets)[values]
    return _search(values, targets)


def _search(values: np.ndarray, targets: dict[int, int]) -> np.ndarray:
    keys = np.array(sorted(targets))
    ids = np.array([targets[key] for key in keys.tolist()])
    position = np.searchsorted(keys, values).clip(max=len(keys) - 1)
    return np.where(keys[position] == values, ids[position], -1)


def shorten(values: Sequence[object], most: int = 5) -> str:
    """Values as text, cut after `most`."""
    return ", ".join(str(value) for value in values[:most]) + (", …" if len(values) > most else "")
