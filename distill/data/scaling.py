"""Pixels scaled for values with long tails (`--data.scale`): the numbers of a scale from the training images.

log         for amplitudes of radar and ultrasound. The floor is a fixed part of the channel's mean, so it does not
            depend on the unit.
percentile  for any values. A channel of which both percentiles are one value although others occur, as of one that is
            nearly always 0, keeps its whole range: held at them, it would say nothing.

What a scale does to a pixel is in `deploy.bundle.pixel_scale`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from deploy.bundle.pixel_scale import LARGEST, LINEAR, PixelScale, ScaleName
from deploy.errors import UserError
from distill.data.percentiles import channel_percentiles
from distill.data.readers import Changed
from distill.data.sample import Sample
from distill.data.splits import Reader
from distill.data.stats import channel_moments

FLOOR = 1e-4
"""Smallest value that counts, as a part of the channel's mean: 80 dB below it as an amplitude."""
LEAST_MEAN = 1e-26
"""Means from which the floor is in the range that a manifest allows."""
PERCENTILES = (2.0, 98.0)
"""Low and high of a channel: the usual stretch of remote sensing."""


def scaled(image: Tensor, scale: PixelScale) -> Tensor:
    """What the network's mean and deviation are of.

    Args:
        image: float …×C×H×W in raw units.
        scale: of C channels.
    """
    low, high = (
        None if bound is None else torch.tensor(bound).view(-1, 1, 1).to(image) for bound in scale.bounds
    )
    return scale.scaled(image, (low, high), torch)


def in_scale(scale: ScaleName, reader: Reader, channels: Sequence[str]) -> tuple[Reader, PixelScale]:
    """The reader whose images have the mean and deviation to normalize by, and the numbers of the scale.

    Args:
        scale: as in `DataConfig.scale`.
        reader: the training images, whose samples are `Sample`s.
        channels: their names.

    Returns:
        The reader itself for "linear". For "log" all images are read once, for "percentile" twice.

    Raises:
        UserError: a channel does not suit the scale, or no image has a valid pixel.
    """
    if scale == "linear":
        return reader, LINEAR
    found = _MEASURED[scale](reader, channels)
    return Changed(reader, partial(_in_scale, scale=found)), found


def _log(reader: Reader, channels: Sequence[str]) -> PixelScale:
    """Floors from the means of the valid pixels."""
    means, _ = channel_moments(reader)
    for name, mean in zip(channels, means.tolist(), strict=True):
        if not mean >= LEAST_MEAN:
            raise UserError(
                f"--data.scale log: channel {name} has the mean {mean:.4g}, and logarithms need one above 0; use linear"
                " (decibels are logarithms already) or percentile, or leave the channel out with --data.channels"
            )
    return PixelScale(log_floor=tuple((means * FLOOR).tolist()))


def _percentile(reader: Reader, channels: Sequence[str]) -> PixelScale:
    """Percentiles of the valid pixels, in float32 as the graph has them."""
    least, low, high, most = channel_percentiles(reader, (0.0, *PERCENTILES, 100.0)).astype(np.float32).T
    sparse = low == high
    ranges = np.where(sparse, least, low), np.where(sparse, most, high)
    for name, *ends in zip(channels, *ranges, strict=True):
        if max(map(abs, ends)) > LARGEST:
            raise UserError(
                f"--data.scale percentile: channel {name} has values beyond {LARGEST:g}; mark them as no data, or leave"
                " the channel out with --data.channels"
            )
    return PixelScale(clip=tuple(zip(*(one.tolist() for one in ranges), strict=True)))


_MEASURED: dict[ScaleName, Callable[[Reader, Sequence[str]], PixelScale]] = {
    "log": _log,
    "percentile": _percentile,
}


def _in_scale(sample: Sample, scale: PixelScale) -> Sample:
    return replace(sample, image=scaled(sample.image.float(), scale))
