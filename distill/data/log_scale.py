"""Pixels scaled by logarithm (`--data.scale log`): for amplitudes of radar and ultrasound, which have long tails.

A channel x enters the network as (ln(max(x, floor)) - mean) / std, where mean and std are those of ln(max(x, floor)).
The floor is a fixed part of the channel's mean, so it does not depend on the unit. All of this is in the graph; files,
resizing, augmentation and pixels without data stay in raw units.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from deploy.errors import UserError
from distill.data.readers import Changed
from distill.data.sample import Sample
from distill.data.splits import Reader
from distill.data.stats import channel_moments

FLOOR = 1e-4
"""Smallest value that counts, as a part of the channel's mean: 80 dB below it as an amplitude."""
LEAST_MEAN = 1e-26
"""Means from which the floor is in the range that a manifest allows."""


def scaled(image: Tensor, floor: Tensor | None) -> Tensor:
    """What the network's mean and deviation are of: ln(max(x, floor)), or x itself where there is no floor.

    Args:
        image: float in raw units.
        floor: above 0, of the same dtype; broadcasts to `image`.
    """
    return image if floor is None else torch.log(torch.maximum(image, floor))


def in_scale(
    scale: Literal["linear", "log"], reader: Reader, channels: Sequence[str]
) -> tuple[Reader, tuple[float, ...] | None]:
    """The reader whose images have the mean and deviation to normalize by, and the floor of each channel.

    Args:
        scale: as in `DataConfig.scale`.
        reader: the training images, whose samples are `Sample`s.
        channels: their names.

    Returns:
        The reader itself and None for "linear". For "log" all images are read once.

    Raises:
        UserError: a channel has no mean above 0, or no image has a valid pixel.
    """
    if scale == "linear":
        return reader, None
    floors = log_floors(reader, channels)
    floor = torch.tensor(floors).view(-1, 1, 1)
    return Changed(reader, partial(_in_logarithms, floor=floor)), floors


def log_floors(reader: Reader, channels: Sequence[str]) -> tuple[float, ...]:
    """The floor of each channel in raw units, from the mean of its valid pixels; see `in_scale`."""
    means, _ = channel_moments(reader)
    for name, mean in zip(channels, means.tolist(), strict=True):
        if not mean >= LEAST_MEAN:
            raise UserError(
                f"--data.scale log: channel {name} has the mean {mean:.4g}, and logarithms need one above 0; use linear"
                " (decibels are logarithms already), or leave the channel out with --data.channels"
            )
    return tuple((means * FLOOR).tolist())


def _in_logarithms(sample: Sample, floor: Tensor) -> Sample:
    return replace(sample, image=scaled(sample.image.float(), floor))
