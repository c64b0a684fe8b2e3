"""The interface of a data set: three readers, and the meaning of their samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
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


def files_of(reader: Reader, index: int) -> tuple[Path, ...]:
    """The files of a sample, images first; none where a reader without the method `files` generates its samples."""
    files = getattr(reader, "files", None)
    return () if files is None else files(index)


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
    """The validation reader itself if the test labels of the data set are not public."""
    unlabeled: Reader | None = None
    """Images without labels, with the same channels; the student alone learns from them."""
    task: str = "segmentation"
    """A name in `distill.tasks.registry.TASKS`; it determines the type of the samples."""

    @property
    def tested_on(self) -> str:
        """The split that final scores are measured on: "val" if there is no test split of its own, else "test"."""
        return "val" if self.test is self.val else "test"
