"""A stream of numbers in constant memory: extremes, moments, and a histogram whose bins widen as they must."""

import math
from dataclasses import dataclass

import numpy as np

from distill.data.stats import Moments, merge_moments

BINS = 256
"""Most bins of a histogram."""
_FLOAT32 = 24
"""Bits of precision that are worth a bin of their own."""


@dataclass(frozen=True)
class Summary:
    """What a stream of numbers looked like."""

    count: int
    min: float
    max: float
    mean: float
    std: float
    """Population deviation."""
    first: float
    """Lower end of the first bin."""
    width: float
    """Of each bin [start, start + width); a power of two."""
    histogram: tuple[int, ...]


class Numbers:
    """Counts numbers as they come.

    Bins are as wide as the smallest power of two with which `BINS` of them hold all numbers, aligned to its multiples.
    So two narrow bins make one wide bin exactly, and the histogram does not depend on the order of the numbers.
    """

    def __init__(self, finest: float = 0.0) -> None:
        """`finest` is the smallest width of a bin, a power of two, such as 1 for integers; 0 = as narrow as need be."""
        self._least = round(math.log2(finest)) if finest else -math.inf
        self._low, self._high = math.inf, -math.inf
        self._moments: Moments = (np.zeros(()), np.zeros(()), np.zeros(()))
        self._exponent, self._first = 0, 0
        self._counts = np.zeros(0, np.int64)

    def update(self, values: np.ndarray) -> None:
        """Count finite numbers of any shape."""
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
        """What came; None where nothing did."""
        count, mean, squares = (float(part) for part in self._moments)
        if not count:
            return None
        width, std = math.ldexp(1.0, self._exponent), math.sqrt(squares / count)
        histogram = tuple(self._counts.tolist())
        return Summary(int(count), self._low, self._high, mean, std, self._first * width, width, histogram)

    def _needed(self) -> int:
        """The exponent of the width with which the bins hold all numbers."""
        largest = math.frexp(max(abs(self._low), abs(self._high)))[1]
        exponent = int(max(self._least, largest - _FLOAT32))
        if self._high > self._low:  # from here it is a step or two
            exponent = max(exponent, math.frexp((self._high - self._low) / BINS)[1] - 1)
        while self._bin(self._high, exponent) - self._bin(self._low, exponent) >= BINS:
            exponent += 1
        return exponent

    @staticmethod
    def _bin(value: float, exponent: int) -> int:
        return math.floor(math.ldexp(value, -exponent))
