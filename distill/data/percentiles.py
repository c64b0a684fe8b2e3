"""Exact percentiles of the channels of any number of images, in memory that does not depend on it.

As integers, the bits of float32 numbers have an order, which is that of the numbers if negative ones are mirrored. A
first pass counts how often each upper half of these integers occurs; then it is known in which of 65,536 ranges a
percentile lies. A second pass counts the lower halves within these ranges alone. Counts do not depend on the order of
the images, and no outlier makes the ranges wider.
"""

from collections.abc import Sequence

import numpy as np

from deploy.heartbeat import counted
from distill.data.sample import Sample
from distill.data.splits import Reader
from distill.data.stats import no_valid_pixel

_HALF = 1 << 16
_SIGN = np.uint32(1 << 31)


def channel_percentiles(reader: Reader, at: Sequence[float]) -> np.ndarray:
    """Percentiles of each channel over the valid pixels of all samples, in two passes.

    They are those of `numpy.percentile` (linear between two values) over all pixels as float64, but for its rounding.
    Memory is 1 MB a channel, and up to 0.5 MB for each of the two values between which each percentile lies.

    Args:
        reader: samples with finite values where they are valid.
        at: each from 0 to 100.

    Returns:
        Float64, channels × percentiles.

    Raises:
        UserError: no image has a valid pixel.
    """
    upper = _upper_halves(reader)
    count = int(upper[0].sum())
    if not count:
        raise no_valid_pixel(reader)
    position = (count - 1) * np.asarray(at) / 100
    below = np.floor(position).astype(np.int64)
    ranks = np.stack([below, np.minimum(below + 1, count - 1)])  # of the values between which each lies
    low, high = _values_at(reader, upper, ranks.ravel()).reshape(len(upper), 2, -1).swapaxes(0, 1)
    return low + (high - low) * (position - below)


def _upper_halves(reader: Reader) -> np.ndarray:
    """How often each upper half occurs, channels × 65,536."""
    total = np.zeros((0, _HALF), np.int64)
    for index in counted(range(len(reader))):
        keys = _keys(reader[index])
        counts = np.stack([np.bincount(row >> 16, minlength=_HALF) for row in keys])
        total = counts + total if len(total) else counts
    return total


def _values_at(reader: Reader, upper: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """The values of these ranks, from 0, of each channel, channels × ranks."""
    ends = upper.cumsum(axis=1)
    ranges = np.stack([np.searchsorted(row, ranks, side="right") for row in ends])
    lower = {
        (channel, part): np.zeros(_HALF, np.int64)
        for channel, parts in enumerate(ranges)
        for part in np.unique(parts)
    }
    for index in counted(range(len(reader))):
        keys = _keys(reader[index])
        for (channel, part), counts in lower.items():
            row = keys[channel]
            counts += np.bincount(row[row >> 16 == part] & _HALF - 1, minlength=_HALF)
    found = np.zeros(ranges.shape, np.uint32)
    for (channel, place), part in np.ndenumerate(ranges):
        within = ranks[place] - (ends[channel, part] - upper[channel, part])
        found[channel, place] = part << 16 | np.searchsorted(
            lower[channel, part].cumsum(), within, side="right"
        )
    return _numbers(found).astype(np.float64)


def _keys(sample: Sample) -> np.ndarray:
    """The valid pixels as uint32 C×N in the order of their values."""
    pixels = sample.image[:, sample.valid].float().numpy()
    negative = pixels.view(np.int32) >> 31  # all bits set, or none
    return pixels.view(np.uint32) ^ (negative.view(np.uint32) | _SIGN)


def _numbers(keys: np.ndarray) -> np.ndarray:
    """The float32 of such integers."""
    return np.where(keys & _SIGN, keys ^ _SIGN, ~keys).view(np.float32)
