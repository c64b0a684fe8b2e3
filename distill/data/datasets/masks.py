"""The meaning of the numbers or colors in label files, which `deploy.files.images.read_mask` reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.errors import UserError
from deploy.evaluation.mask_mistakes import codes_of
from distill.data.datasets.palettes import RGB, palette_of, targets_by_color
from distill.data.sample import IGNORE


@dataclass(frozen=True)
class Legend:
    """How the label files of a data set encode its classes."""

    values: tuple[int, ...]
    """Stored value of each class."""
    ignore: tuple[int, ...] = ()
    """Stored values that mean void; so does 255, unless it is the value of a class."""
    colors: tuple[RGB, ...] = ()
    """Color of each class, for files that hold colors or a palette; empty if files must hold class ids."""
    ignore_colors: tuple[RGB, ...] = ()
    """Colors that mean void."""

    def ids(self, mask: np.ndarray, path: Path) -> np.ndarray:
        """Convert a mask to class ids.

        Args:
            mask: what `read_mask` returned: integers H×W or colors H×W×3.
            path: its file, whose palette is read, too: the colors of classes decide, whatever their order in it.

        Returns:
            int64 H×W, 255 at void pixels.

        Raises:
            UserError: the mask holds a value or color that is not in the legend.
        """
        if mask.ndim == 3:
            return self._from_colors(mask, path)
        targets = self.by_palette(mask, path)
        if targets is None:
            targets = dict.fromkeys((IGNORE, *self.ignore), IGNORE) | {
                v: i for i, v in enumerate(self.values)
            }
        ids = _look_up(mask, targets)
        if (ids < 0).any():
            found = shorten(np.unique(mask[ids < 0]).tolist())
            raise UserError(
                f"{path}: label id {found} is out of range for {len(self.values)} classes "
                f"(known ids: {shorten(self.values, 25)}; void: {shorten(sorted({*self.ignore, IGNORE}), 25)})"
            )
        return ids

    def by_palette(self, mask: np.ndarray, path: Path) -> dict[int, int] | None:
        """The class of each number in a palette image whose colors are those of the classes; otherwise None.

        Raises:
            UserError: some of its colors are those of classes, and others are not.
        """
        palette = palette_of(path) if self.colors and mask.ndim == 2 else None
        if palette is None:
            return None
        colors = dict.fromkeys(self.ignore_colors, IGNORE) | {c: i for i, c in enumerate(self.colors)}
        void = {IGNORE, *self.ignore}.difference(self.values)
        found = targets_by_color(np.unique(mask).tolist(), palette, colors, void, path)
        if found is None:
            return None
        return {index: IGNORE if to is None else to for index, to in found.items()}

    def _from_colors(self, mask: np.ndarray, path: Path) -> np.ndarray:
        if not self.colors:
            raise UserError(
                f"{path}: the mask holds colors, not class ids; give every class its color in classes.json"
            )
        targets = {_code(color): IGNORE for color in self.ignore_colors}
        targets |= {_code(color): index for index, color in enumerate(self.colors)}
        ids = _look_up(codes_of(mask), targets)
        if (ids < 0).any():
            row, column = np.argwhere(ids < 0)[0]
            color = tuple(mask[row, column].tolist())
            raise UserError(
                f"{path}: color {color} at row {row}, column {column} is none of the {len(self.colors)} classes'"
            )
        return ids


def _code(color: RGB) -> int:
    return int(codes_of(np.array(color)))


def _look_up(values: np.ndarray, targets: dict[int, int]) -> np.ndarray:
    """The target of each value, int64; -1 if it has none."""
    if values.dtype == np.uint8:  # a table of all 256 values is fastest
        return _search(np.arange(256), targets)[values]
    return _search(values, targets)


def _search(values: np.ndarray, targets: dict[int, int]) -> np.ndarray:
    keys = np.array(sorted(targets))
    ids = np.array([targets[key] for key in keys.tolist()])
    position = np.searchsorted(keys, values).clip(max=len(keys) - 1)
    return np.where(keys[position] == values, ids[position], -1)


def shorten(values: Sequence[object], most: int = 5) -> str:
    """Values as text, at most `most` of them."""
    return ", ".join(str(value) for value in values[:most]) + (", …" if len(values) > most else "")
