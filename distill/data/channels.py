"""Selection of the image channels that a network receives."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.errors import UserError
from distill.data.sample import Sample
from distill.data.splits import Reader, Splits, files_of


@dataclass(frozen=True)
class ChannelReader:
    """Samples of another reader, reduced to some of their channels.

    A pixel without data in any channel of the original stays invalid.
    """

    reader: Reader
    indices: tuple[int, ...]

    @property
    def ids(self) -> Sequence[str]:
        """The name of each sample."""
        return self.reader.ids

    def __len__(self) -> int:
        return len(self.reader)

    def files(self, index: int) -> tuple[Path, ...]:
        """The files of a sample."""
        return files_of(self.reader, index)

    def __getitem__(self, index: int) -> Sample:
        sample = self.reader[index]
        return replace(sample, image=sample.image[list(self.indices)])


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
    train, val = (ChannelReader(reader, indices) for reader in (splits.train, splits.val))
    test = val if splits.test is splits.val else ChannelReader(splits.test, indices)
    unlabeled = None if splits.unlabeled is None else ChannelReader(splits.unlabeled, indices)
    channels = tuple(splits.channels[index] for index in indices)
    return replace(splits, channels=channels, train=train, val=val, test=test, unlabeled=unlabeled)


def _position(name: str, channels: Sequence[str]) -> int:
    if name in channels:
        return channels.index(name)
    if name.isdecimal() and int(name) < len(channels):
        return int(name)
    there = ", ".join(f"{index} {channel}" for index, channel in enumerate(channels))
    raise UserError(f"--data.channels {name}: the data has no such channel; it has {there}")
