"""Prepared samples, kept in memory for the epochs to come."""

from collections.abc import Callable
from typing import Generic, TypeVar

from torch.utils.data import get_worker_info

T = TypeVar("T")

CACHE_BYTES = 2**31
"""Most memory that they take, over all workers of a loader."""


class SampleCache(Generic[T]):
    """What `make` gives for each index, kept up to `CACHE_BYTES`; each worker of a loader keeps its own share.

    Args:
        make: prepares the sample of an index.
        size: bytes of a sample.
        keep: False makes each anew.
    """

    def __init__(self, make: Callable[[int], T], size: Callable[[T], int], keep: bool) -> None:
        self._make, self._size, self._keep = make, size, keep
        self.samples: dict[int, T] = {}
        self._bytes = 0

    def __getitem__(self, index: int) -> T:
        if index in self.samples:
            return self.samples[index]
        sample = self._make(index)
        worker = get_worker_info()
        room = CACHE_BYTES // (worker.num_workers if worker else 1)
        if self._keep and self._bytes + self._size(sample) <= room:
            self.samples[index] = sample
            self._bytes += self._size(sample)
        return sample

    def fill(self, count: int, other: "SampleCache[T] | None" = None) -> None:
        """Make those below `count` that find room; with `other`, of the same samples, share what it has."""
        if other is not None:
            self.samples, self._bytes = other.samples, other._bytes
        for index in range(count):
            self[index]
            if index not in self.samples:  # no room for more
                return
