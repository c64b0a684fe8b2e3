"""Readers made of other readers: some of their samples, their samples changed, several one after the other."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from distill.data.splits import Reader, Splits, files_of


@dataclass(frozen=True)
class Subset:
    """Some samples of another reader."""

    reader: Reader
    indices: tuple[int, ...]

    @property
    def ids(self) -> Sequence[str]:
        """The name of each sample."""
        ids = self.reader.ids
        return [ids[index] for index in self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def files(self, index: int) -> tuple[Path, ...]:
        """The files of a sample."""
        return files_of(self.reader, self.indices[index])

    def __getitem__(self, index: int) -> Any:
        return self.reader[self.indices[index]]


@dataclass(frozen=True)
class Changed:
    """The samples of another reader, each changed by a function."""

    reader: Reader
    change: Callable[[Any], Any]
    """Of module level, or a `partial` of one: readers are sent to the processes that load images."""

    @property
    def ids(self) -> Sequence[str]:
        """The name of each sample."""
        return self.reader.ids

    def __len__(self) -> int:
        return len(self.reader)

    def files(self, index: int) -> tuple[Path, ...]:
        """The files of a sample."""
        return files_of(self.reader, index)

    def __getitem__(self, index: int) -> Any:
        return self.change(self.reader[index])


@dataclass(frozen=True)
class Joined:
    """The samples of several readers, one reader after the other."""

    readers: tuple[Reader, ...]

    @property
    def ids(self) -> Sequence[str]:
        """The name of each sample."""
        return [name for reader in self.readers for name in reader.ids]

    def __len__(self) -> int:
        return sum(map(len, self.readers))

    def files(self, index: int) -> tuple[Path, ...]:
        """The files of a sample."""
        return files_of(*self._place(index))

    def __getitem__(self, index: int) -> Any:
        reader, position = self._place(index)
        return reader[position]

    def _place(self, index: int) -> tuple[Reader, int]:
        """The reader of a sample, and its position there."""
        ends = list(accumulate(map(len, self.readers)))
        part = bisect_right(ends, index)
        return self.readers[part], index - (ends[part - 1] if part else 0)


def training_images(splits: Splits) -> Splits:
    """The data set with all images to learn from as its training split: those without labels follow the others."""
    if splits.unlabeled is None:
        return splits
    return replace(splits, train=Joined((splits.train, splits.unlabeled)))
