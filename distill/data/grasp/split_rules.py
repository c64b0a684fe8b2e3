"""Rules that split a data set: by image, or by object, so that no two parts share an object.

Lenz et al. (IJRR 2015, arXiv:1301.3592) call these the image-wise and the object-wise split of Cornell. All functions
are pure: the result never depends on the order of a directory listing.
"""

from collections.abc import Sequence

import numpy as np

from deploy.errors import UserError
from distill.data.seeding import generator

FRACTIONS = (0.8, 0.1, 0.1)
"""Of training, validation and test."""

Indices = tuple[int, ...]


def image_wise(count: int, fractions: Sequence[float] = FRACTIONS, seed: int = 0) -> tuple[Indices, ...]:
    """Divide the indices 0..count-1 at random.

    Args:
        count: number of images.
        fractions: the size of each part.
        seed: determines the parts.

    Returns:
        The indices of each part, in ascending order.

    Raises:
        UserError: the fractions are not positive with sum 1, or a part is empty.
    """
    return _divide([str(index) for index in range(count)], fractions, seed)


def object_wise(
    objects: Sequence[str], fractions: Sequence[float] = FRACTIONS, seed: int = 0
) -> tuple[Indices, ...]:
    """Divide images so that no two parts share an object.

    Objects in random order fill one part after the other, so each part has about its fraction of the images.

    Args:
        objects: identity of the object in each image.
        fractions: the size of each part.
        seed: determines the parts.

    Returns:
        The indices of each part, in ascending order.

    Raises:
        UserError: the fractions are not positive with sum 1, or a part is empty.
    """
    return _divide(objects, fractions, seed)


def folds(objects: Sequence[str], count: int, seed: int = 0) -> tuple[Indices, ...]:
    """Divide images into folds of about equal size that share no object, for cross-validation.

    Args:
        objects: identity of the object in each image; for folds by image, give each image its own.
        count: number of folds.
        seed: determines the folds.

    Returns:
        The indices of each fold, in ascending order.

    Raises:
        UserError: fewer than two folds, or a fold is empty.
    """
    if count < 2:
        raise UserError(f"cross-validation needs 2 folds or more, not {count}")
    return _divide(objects, [1 / count] * count, seed)


def _divide(objects: Sequence[str], fractions: Sequence[float], seed: int) -> tuple[Indices, ...]:
    if min(fractions, default=0) <= 0 or abs(sum(fractions) - 1) > 1e-9:
        raise UserError(f"fractions {tuple(fractions)}: must be above 0 with sum 1")
    names, which, sizes = np.unique(np.array(objects, str), return_inverse=True, return_counts=True)
    order = generator("grasp split", seed).permutation(len(names))
    # With the images of all objects laid out in random order, an object belongs to the part of its middle image.
    middle = np.cumsum(sizes[order]) - sizes[order] / 2
    part_of = np.empty(len(names), int)
    part_of[order] = np.searchsorted(np.cumsum(fractions)[:-1] * len(objects), middle, side="right")
    parts = tuple(tuple(np.flatnonzero(part_of[which] == n).tolist()) for n in range(len(fractions)))
    if not all(parts):
        raise UserError(
            f"{len(names)} different objects are too few for parts of {tuple(fractions)}; add data"
        )
    return parts
