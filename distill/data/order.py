"""Which samples make up each batch: a pure function of (seed, step).

A stream of samples is endless: the permutation of epoch 0, then that of epoch 1, and so on. Step t takes the next ones,
so a run that resumes at step t sees the same samples as an uninterrupted run, with any number of workers, and no sample
is dropped at the end of an epoch. Images with and without labels are two streams, each with its own epochs.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from distill.data.seeding import generator
from distill.data.view import Key


@dataclass(frozen=True)
class Order:
    """The order in which a training sees the images of a view."""

    labeled: int
    """Number of images with labels, the first ones of the view."""
    unlabeled: int = 0
    """Number of images without labels, which follow."""
    share: float = 0.0
    """Share of each batch that has no labels, if there are such images."""

    def unlabeled_of(self, batch_size: int) -> int:
        """How many images of a batch have no labels."""
        return round(self.share * batch_size) if self.unlabeled else 0

    def keys(self, batch_size: int, seed: int, step: int) -> list[Key]:
        """The (epoch, index) of the samples of global step `step`.

        Images without labels are spread evenly over the batch, so that the micro-batches and processes that share it
        have about equally many.
        """
        without = self.unlabeled_of(batch_size)
        labeled = iter(step_indices(self.labeled, batch_size - without, seed, step))
        others = iter(step_indices(self.unlabeled, without, seed, step, "order of unlabeled images"))
        keys: list[Key] = []
        for place in range(batch_size):
            if (place + 1) * without // batch_size > place * without // batch_size:
                epoch, index = next(others)
                keys.append((epoch, self.labeled + index))
            else:
                keys.append(next(labeled))
        return keys


def step_indices(n: int, count: int, seed: int, step: int, stream: str = "order") -> list[Key]:
    """The (epoch, index) of the `count` samples that step `step` takes of a stream of `n` samples."""
    positions = range(step * count, (step + 1) * count)
    return [
        (position // n, int(_permutation(n, seed, position // n, stream)[position % n]))
        for position in positions
    ]


@lru_cache(maxsize=8)
def _permutation(n: int, seed: int, epoch: int, stream: str) -> np.ndarray:
    return generator(stream, seed, epoch).permutation(n)
