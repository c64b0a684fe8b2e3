"""An in-memory cache of prepared samples, reused across epochs."""

from collections.abc import Callable
from typing import Generic, TypeVar

from torch.utils.data import get_worker_info

T = TypeVar("T")

CACHE_BYTES = 2**31
"""Memory limit, shared by all workers of a loader."""


class SampleCache(Generic[T]):
    """Samples by index, prepared on first access and cached until `CACHE_BYTES` is reached.

    Each worker of a loader fills a cache of its own, up to an equal part of the limit.

    Args:
        prepare: returns the sample of an index.
        size_of: returns the bytes of a sample.
        enabled: False prepares a sample at every access.
    """

    def __init__(self, prepare: Callable[[int], T], size_of: Callable[[T], int], enabled: bool) -> None:
        self._prepare, self._size_of, self._enabled = prepare, size_of, enabled
        self.samples: dict[int, T] = {}
        self._bytes = 0

    def __getitem__(self, index: int) -> T:
        if index in self.samples:
            return self.samples[index]
        sample = self._prepare(index)
        worker = get_worker_info()
        room = CACHE_BYTES // (worker.num_workers if worker else 1)
        if self._enabled and self._bytes + self._size_of(sample) <= room:
            self.samples[index] = sample
            self._bytes += self._size_of(sample)
        return sample

    def fill(self, count: int, other: "SampleCache[T] | None" = None) -> None:
        """Prepare the samples 0..count-1 in order, until the cache is full.

        Args:
            count: number of samples.
            other: a cache of the same samples, whose content is shared.
        """
        if other is not None:
            self.samples, self._bytes = other.samples, other._bytes
        for index in range(count):
            self[index]
            if index not in self.samples:  # the cache is full
                return
