"""Palettes of label files: which number is which color, where every file may have an order of its own."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from deploy.errors import UserError
from deploy.files.images import read_palette

RGB = tuple[int, int, int]


def palette_of(path: Path) -> list[RGB] | None:
    """The colors of a palette image by their index; None for other files (see `deploy.files.images.read_palette`)."""
    colors = read_palette(path)
    return None if colors is None else [(r, g, b) for r, g, b in colors.tolist()]


def known_by_color(
    used: Collection[int], palette: Sequence[RGB], colors: Mapping[RGB, int], void: Collection[int]
) -> tuple[dict[int, int | None], list[int]]:
    """The target of each index whose color is a class's, None where it is void; and the other indices.

    The arguments are those of `targets_by_color`.
    """
    found: dict[int, int | None] = {}
    unknown: list[int] = []
    for index in used:
        color = palette[index] if 0 <= index < len(palette) else None
        if color is not None and color in colors and not (index in void and palette.count(color) > 1):
            found[index] = colors[color]
        elif index in void:
            found[index] = None
        else:
            unknown.append(index)
    return found, unknown


def targets_by_color(
    used: Collection[int], palette: list[RGB], colors: Mapping[RGB, int], void: Collection[int], path: Path
) -> dict[int, int | None] | None:
    """The target of each index of a palette image, if its colors are those of the classes.

    Numbers decide where no color is known (colors only for display), or where the palette is a ramp of gray.

    Args:
        used: the indices in the file.
        palette: its colors.
        colors: the target of each color.
        void: indices that are void unless the palette gives them, and only them, a color of a class.
        path: the file, for the message.

    Returns:
        The target of each used index, None where it is void; or None where numbers decide.

    Raises:
        UserError: some of the colors are known and others are not.
    """
    found, unknown = known_by_color(used, palette, colors, void)
    if not unknown:
        return found if any(target is not None for target in found.values()) else None
    is_ramp = all(index < len(palette) and palette[index] == (index,) * 3 for index in used)
    if is_ramp or all(target is None for target in found.values()):
        return None
    color = palette[unknown[0]] if unknown[0] < len(palette) else "missing"
    raise UserError(
        f"{path}: index {unknown[0]} of its palette has the color {color}, which is no class's, while others"
        " have colors of classes; give every class in classes.json the color of the masks, or no class a color"
    )


class PaletteOrder:
    """The color of each index over all files whose numbers decide: it must be the same in all."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[RGB, Path]] = {}

    def check(self, used: np.ndarray, palette: list[RGB], path: Path) -> None:
        """Compare a file with those before.

        Raises:
            UserError: an index has another color there.
        """
        for index in used.tolist():
            if not 0 <= index < len(palette):
                continue
            color, first = self._seen.setdefault(index, (palette[index], path))
            if color != palette[index]:
                raise UserError(
                    f"{path}: index {index} of its palette is {palette[index]}, but {color} in {first}, so the numbers"
                    " mean no class; give every class in classes.json the color that the masks have for it"
                )
