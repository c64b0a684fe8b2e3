"""Statistics of a stream of numbers in constant memory: extremes, moments, and a histogram with adaptive bins."""

import math
from dataclasses import dataclass

import numpy as np

from distill.data.stats import Moments, merge_moments

BINS = 256
"""Largest number of bins in a histogram."""
_FLOAT32 = 24
"""Bits of precision of the numbers: bins are never narrower than that."""


@dataclass(frozen=True)
class Summary:
    """Statistics of a stream of numbers."""

    count: int
    min: float
    max: float
    mean: float
    std: float
    """Population deviation."""
    first: float
    """Lower end of the first bin."""
    width: float
    """Width of each bin [start, start + width), a power of two."""
    histogram: tuple[int, ...]


class RunningSummary:
    """Accumulates a `Summary` from batches of numbers.

    The width of the bins is the smallest power of two with which `BINS` of them cover all numbers, and bins are aligned
    to its multiples. So two narrow bins merge exactly into a wide one, and the histogram does not depend on the order
    of the numbers.

    Args:
        finest: smallest width of a bin, a power of two, such as 1 for integers; 0 = no limit.
    """

    def __init__(self, finest: float = 0.0) -> None:
        self._least = round(math.log2(finest)) if finest else -math.inf
        self._low, self._high = math.inf, -math.inf
        self._moments: Moments = (np.zeros(()), np.zeros(()), np.zeros(()))
        self._exponent, self._first = 0, 0
        self._counts = np.zeros(0, np.int64)

    def update(self, values: np.ndarray) -> None:
        """Add finite numbers, an array of any shape."""
        values = np.asarray(values, np.float64).ravel()
        if values.size == 0:
            return
        mean = values.mean()
        moments = np.asarray(float(values.size)), mean, np.square(values - mean).sum()
        self._moments = merge_moments(self._moments, moments)
        self._low, self._high = min(self._low, float(values.min())), max(self._high, float(values.max()))
        exponent = self._needed()
        bins = np.arange(self._first, self._first + len(self._counts)) >> exponent - self._exponent
        new = np.floor(np.ldexp(values, -exponent)).astype(np.int64)
        first, last = int(min([*bins[:1], new.min()])), int(max([*bins[-1:], new.max()]))
        counts = np.bincount(new - first, minlength=last - first + 1)
        np.add.at(counts, bins - first, self._counts)
        self._exponent, self._first, self._counts = exponent, first, counts

    def summary(self) -> Summary | None:
        """The statistics of all numbers so far; None if there were none."""
        count, mean, squares = (float(part) for part in self._moments)
        if not count:
            return None
        width, std = math.ldexp(1.0, self._exponent), math.sqrt(squares / count)
        histogram = tuple(self._counts.tolist())
        return Summary(int(count), self._low, self._high, mean, std, self._first * width, width, histogram)

    def _needed(self) -> int:
        """The exponent of the bin width with which the bins cover all numbers."""
        largest = math.frexp(max(abs(self._low), abs(self._high)))[1]
        exponent = int(max(self._least, largest - _FLOAT32))
        if self._high > self._low:  # an estimate; the loop takes a step or two from here
            exponent = max(exponent, math.frexp((self._high - self._low) / BINS)[1] - 1)
        while self._bin(self._high, exponent) - self._bin(self._low, exponent) >= BINS:
            exponent += 1
        return exponent

    @staticmethod
    def _bin(value: float, exponent: int) -> int:
        return math.floor(math.ldexp(value, -exponent))
