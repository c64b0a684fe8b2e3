"""Arrays of random pixels that tests write to image files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from deploy.errors import UserError

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
IDS = RGB[..., 0] % 4
FOUR = np.dstack([RGB, RGB[..., 0]])


def refusal(read: Callable[[Path], Any], path: Path) -> str:
    """What a reader says about a file that it refuses; "" where it reads it. Other errors are failures."""
    try:
        read(path)
    except UserError as error:
        return str(error)
    return ""
