"""Nearly equal images on both sides of a split, such as neighboring frames of a video: scores there are too good."""

import cv2
import numpy as np

SIDE = 12
MOST_IMAGES = 3000
"""Of one split that are compared; the first ones."""
ALIKE = 0.99
"""Correlation of two thumbnails from which their images count as nearly equal."""


class Thumbnails:
    """Small gray pictures of images, normalized to mean 0 and length 1."""

    def __init__(self) -> None:
        self._found: list[np.ndarray] = []

    def update(self, image: np.ndarray) -> None:
        """Add an image, float32 C×H×W with NaN where there is no data; one without contrast is left out."""
        if len(self._found) >= MOST_IMAGES:
            return
        gray = np.ascontiguousarray(image.mean(axis=0))
        known = np.isfinite(gray)
        if not known.any():
            return
        gray = np.where(known, gray, gray[known].mean()).astype(np.float32)
        small = cv2.resize(gray, (SIDE, SIDE), interpolation=cv2.INTER_AREA).ravel().astype(np.float64)
        small -= small.mean()
        length = float(np.linalg.norm(small))
        if length > 1e-6 * float(np.abs(gray).max()):
            self._found.append((small / length).astype(np.float32))

    def result(self) -> np.ndarray:
        """The pictures, float32 N×(SIDE²)."""
        return np.stack(self._found) if self._found else np.zeros((0, SIDE * SIDE), np.float32)


def twin_share(images: np.ndarray, others: np.ndarray) -> float:
    """The share of images with a nearly equal one among others; 0 where one of them is empty.

    Args:
        images: from `Thumbnails.result`.
        others: the same of another split.
    """
    if not len(images) or not len(others):
        return 0.0
    best = [float((others @ one).max()) for one in images]
    return float(np.mean(np.array(best) > ALIKE))
