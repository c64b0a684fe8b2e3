"""Scores at another size, and as probabilities."""

import numpy as np


def upsample(scores: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize float32 K×h×w bilinearly to K×(height, width), as torch's `interpolate(align_corners=False)` does.

    Pixel centers are at half positions, and shrinking does not smooth. Not copied if the size is equal.
    """
    if scores.shape[1:] == size:
        return scores
    left, right, weight = neighbors(scores.shape[2], size[1])
    wide = scores.take(left, axis=2)
    wide += (scores.take(right, axis=2) - wide) * weight
    above, below, weight = neighbors(scores.shape[1], size[0])
    resized = np.empty((len(scores), *size), scores.dtype)
    for plane, target in zip(wide, resized, strict=True):  # one plane at a time stays in the cache
        plane.take(above, axis=0, out=target)
        step = plane.take(below, axis=0)
        step -= target
        step *= weight[:, None]
        target += step
    return resized


def neighbors(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Along one axis, the two `old` pixels around the center of each `new` one, and the weight of the second."""
    where = ((np.arange(new) + 0.5) * old / new - 0.5).clip(0, old - 1)
    first = where.astype(np.intp)
    return first, np.minimum(first + 1, old - 1), (where - first).astype(np.float32)


def softmax(scores: np.ndarray) -> np.ndarray:
    """Softmax over the first axis of K×H×W, without overflow for scores of any size."""
    result = scores - scores.max(axis=0)
    np.exp(result, out=result)
    result /= result.sum(axis=0)
    return result
