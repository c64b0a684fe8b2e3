"""What a data set is to the rest of the project: three readers and the meaning of their numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from deploy.bundle.manifest import ClassInfo


class Reader(Protocol):
    """Samples by position. Reading one twice gives the same sample."""

    @property
    def ids(self) -> Sequence[str]:
        """The name of each sample."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any:
        """A sample of the type that the task of its `Splits` reads."""
        ...


@dataclass(frozen=True)
class Splits:
    """A data set: training, validation and test samples that share classes and channels."""

    name: str
    classes: tuple[ClassInfo, ...]
    channels: tuple[str, ...]
    """Name of each image channel, in order."""
    optical: bool
    """Images are uint8 (0..255); otherwise float32 with NaN where there is no data."""
    train: Reader
    val: Reader
    test: Reader
    """The validation reader itself where a data set keeps its test labels to itself."""
    task: str = "segmentation"
    """One of `distill.tasks.registry.TASKS`, which says what the samples are."""

    @property
    def tested_on(self) -> str:
        """The name of the split that final scores come from: "val" where that is all there is, else "test"."""
        return "val" if self.test is self.val else "test"
