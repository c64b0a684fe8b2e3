"""The interface of a training view of a data set, for all tasks."""

from typing import Any, Protocol

from distill.config import AugmentConfig
from distill.data.sample import Sample
from distill.data.splits import Reader

Key = tuple[int, int]
"""Epoch and index."""


class View(Protocol):
    """Samples by (epoch, index), ready to be batched: at network scale, without NaN, augmented."""

    @property
    def reader(self) -> Reader:
        """Source of the samples."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """Height and width at network scale."""
        ...

    @property
    def resize(self) -> str:
        """How images are brought to that scale; see `DataConfig.resize`."""
        ...

    @property
    def augment(self) -> AugmentConfig | None:
        """Random augmentation; None = no augmentation."""
        ...

    @property
    def mean(self) -> tuple[float, ...]:
        """Fills pixels without data and padding, per channel."""
        ...

    @property
    def seed(self) -> int:
        """Seed of the augmentation."""
        ...

    @property
    def views(self) -> int:
        """Fixed number of augmented views per image; 0 = a new view in every epoch."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, key: Key) -> Sample:
        """The sample of (epoch, index)."""
        ...

    def preload(self, other: Any = None) -> None:
        """Decode images until the cache is full.

        Args:
            other: another view of the same reader and size, whose cached images are shared.
        """
        ...
