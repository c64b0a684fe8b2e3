"""Arrays of random pixels that tests write to image files."""

import numpy as np

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
IDS = RGB[..., 0] % 4
FOUR = np.dstack([RGB, RGB[..., 0]])
