"""Dividing a data set into parts: by image, or by object, so that no part shares an object with another.

Lenz et al. (IJRR 2015, arXiv:1301.3592) name these the image-wise and the object-wise split of Cornell. All is a pure
function of the arguments, and never of the order in which a file system lists.
"""

from collections.abc import Sequence

import numpy as np

from deploy.errors import UserError
from distill.data.seeding import generator

FRACTIONS = (0.8, 0.1, 0.1)
"""Training, validation, test."""

Indices = tuple[int, ...]


def image_wise(count: int, fractions: Sequence[float] = FRACTIONS, seed: int = 0) -> tuple[Indices, ...]:
    """Indices 0..count-1 divided by chance into parts of these fractions; each part in ascending order.

    Raises UserError where the fractions are not positive with sum 1, or a part stays empty.
    """
    return _divide([str(index) for index in range(count)], fractions, seed)


def object_wise(
    objects: Sequence[str], fractions: Sequence[float] = FRACTIONS, seed: int = 0
) -> tuple[Indices, ...]:
    """Indices of `objects`, the identity of what each image shows, divided so that parts share no object.

    Whole objects in random order fill part after part, so a part has about its fraction of the images. Raises UserError
    as `image_wise` does.
    """
    return _divide(objects, fractions, seed)


def folds(objects: Sequence[str], count: int, seed: int = 0) -> tuple[Indices, ...]:
    """`count` parts of about equal size that share no object, for cross-validation; each serves as test once.

    For folds by image give each image an identity of its own.
    """
    if count < 2:
        raise UserError(f"cross-validation needs 2 folds or more, not {count}")
    return _divide(objects, [1 / count] * count, seed)


def _divide(objects: Sequence[str], fractions: Sequence[float], seed: int) -> tuple[Indices, ...]:
    if min(fractions, default=0) <= 0 or abs(sum(fractions) - 1) > 1e-9:
        raise UserError(f"fractions {tuple(fractions)}: must be above 0 with sum 1")
    names, which, sizes = np.unique(np.array(objects, str), return_inverse=True, return_counts=True)
    order = generator("grasp split", seed).permutation(len(names))
    # An object belongs to the part where its middle image falls, all laid out in random order.
    middle = np.cumsum(sizes[order]) - sizes[order] / 2
    part_of = np.empty(len(names), int)
    part_of[order] = np.searchsorted(np.cumsum(fractions)[:-1] * len(objects), middle, side="right")
    parts = tuple(tuple(np.flatnonzero(part_of[which] == n).tolist()) for n in range(len(fractions)))
    if not all(parts):
        raise UserError(
            f"{len(names)} different objects are too few for parts of {tuple(fractions)}; add data"
        )
    return parts
