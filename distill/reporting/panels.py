"""Panels of a picture, side by side."""

from collections.abc import Sequence

import numpy as np

GAP = 4


def side_by_side(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures uint8 H×W×3 side by side on white, with a gap after each."""
    height = max(len(picture) for picture in pictures)
    padded = [np.pad(p, ((0, height - len(p)), (0, GAP), (0, 0)), constant_values=255) for p in pictures]
    return np.concatenate(padded, axis=1)
