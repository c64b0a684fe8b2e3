"""Levels: the range of a map in equal steps, which are the labels of a regression network and color its maps."""

import numpy as np

from deploy.bundle.manifest import ClassInfo

COLORS = (
    (68, 1, 84),
    (70, 51, 127),
    (54, 92, 141),
    (39, 127, 142),
    (31, 161, 135),
    (74, 194, 109),
    (159, 218, 58),
    (253, 231, 37),
)
"""Eight steps of matplotlib's viridis."""
LEVELS = tuple(ClassInfo(f"level {number}", color) for number, color in enumerate(COLORS, start=1))
"""The classes of all regression networks, from low to high values."""
SPAN = 2.0
"""The levels cover the mean ± this many standard deviations; the outermost two have no outer bound."""


def level_edges(mean: float, std: float) -> np.ndarray:
    """The bounds between neighboring levels.

    Args:
        mean: mean of the maps in the training split.
        std: their standard deviation.

    Returns:
        float32, ascending, one fewer than the number of levels.
    """
    step = 2 * SPAN * std / len(LEVELS)
    return (mean + step * (np.arange(1, len(LEVELS)) - len(LEVELS) / 2)).astype(np.float32)
