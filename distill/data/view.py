"""What training needs of a view of a data set, whatever its task."""

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
        """Where samples come from."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """Height and width at network scale."""
        ...

    @property
    def resize(self) -> str:
        """How images come to that scale; see `DataConfig.resize`."""
        ...

    @property
    def augment(self) -> AugmentConfig | None:
        """Random changes."""
        ...

    @property
    def mean(self) -> tuple[float, ...]:
        """What fills pixels without data and padding."""
        ...

    @property
    def seed(self) -> int:
        """Of the random changes."""
        ...

    @property
    def views(self) -> int:
        """Fixed views of each image; 0 = new ones in every epoch."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, key: Key) -> Sample:
        """The sample of (epoch, index)."""
        ...

    def preload(self, other: Any = None) -> None:
        """Decode the images that fit the cache; with another view of the same reader and size, share what it has."""
        ...
