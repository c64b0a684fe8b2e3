"""Selection of the image channels that a network receives."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from deploy.errors import UserError
from distill.data.readers import Changed
from distill.data.sample import Sample
from distill.data.splits import Splits


def choose_channels(splits: Splits, wanted: Sequence[str]) -> Splits:
    """The same data with only some channels.

    Args:
        splits: the data with all channels.
        wanted: names, or positions from 0, in the new order; an item may be a comma-separated list (`0,1`), as on a
            command line. Empty selects all channels.

    Raises:
        UserError: a channel does not exist, or is named twice.
    """
    names = [name.strip() for item in wanted for name in item.split(",")]
    if not names:
        return splits
    indices = tuple(_position(name, splits.channels) for name in names)
    if len(set(indices)) < len(indices):
        raise UserError(f"--data.channels {' '.join(wanted)}: names a channel twice")
    if indices == tuple(range(len(splits.channels))):
        return splits
    chosen = partial(_chosen, indices=indices)
    train, val = (Changed(reader, chosen) for reader in (splits.train, splits.val))
    test = val if splits.test is splits.val else Changed(splits.test, chosen)
    unlabeled = None if splits.unlabeled is None else Changed(splits.unlabeled, chosen)
    channels = tuple(splits.channels[index] for index in indices)
    return replace(splits, channels=channels, train=train, val=val, test=test, unlabeled=unlabeled)


def _chosen(sample: Sample, indices: Sequence[int]) -> Sample:
    """Some channels; a pixel without data in any channel of the original stays invalid."""
    return replace(sample, image=sample.image[list(indices)])


def _position(name: str, channels: Sequence[str]) -> int:
    if name in channels:
        return channels.index(name)
    if name.isdecimal() and int(name) < len(channels):
        return int(name)
    there = ", ".join(f"{index} {channel}" for index, channel in enumerate(channels))
    raise UserError(f"--data.channels {name}: the data has no such channel; it has {there}")
