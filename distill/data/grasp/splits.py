"""The three splits of a grasp data set, from a reader of all its images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from deploy.bundle.manifest import ClassInfo
from distill.data.grasp.files import CHANNEL_NAMES, Channels
from distill.data.grasp.sample import GraspSample
from distill.data.grasp.split_rules import FRACTIONS, image_wise, object_wise
from distill.data.splits import Splits, files_of

CLASSES = (ClassInfo("background", (60, 60, 60)), ClassInfo("graspable", (70, 200, 90)))
"""Classes of a grasp network's quality map."""

SplitBy = Literal["object", "image"]


class GraspReader(Protocol):
    """Samples by position, and the object in each."""

    @property
    def ids(self) -> Sequence[str]:
        """The name of each sample."""
        ...

    @property
    def objects(self) -> Sequence[str]:
        """Identity of the object in each sample."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> GraspSample: ...


@dataclass(frozen=True)
class Subset:
    """Some of the samples of a reader."""

    reader: GraspReader
    indices: Sequence[int]

    @property
    def ids(self) -> Sequence[str]:
        """The name of each sample."""
        ids = self.reader.ids
        return [ids[index] for index in self.indices]

    @property
    def objects(self) -> Sequence[str]:
        """Identity of the object in each sample."""
        objects = self.reader.objects
        return [objects[index] for index in self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def files(self, index: int) -> tuple[Path, ...]:
        """The files of a sample."""
        return files_of(self.reader, self.indices[index])

    def __getitem__(self, index: int) -> GraspSample:
        return self.reader[self.indices[index]]


def split_reader(name: str, reader: GraspReader, channels: Channels, by: SplitBy) -> Splits:
    """Split a data set without a published split 80/10/10 into training, validation and test, the same in every run."""
    parts = object_wise(reader.objects) if by == "object" else image_wise(len(reader), FRACTIONS)
    return grasp_splits(name, channels, *(Subset(reader, indices) for indices in parts))


def grasp_splits(
    name: str, channels: Channels, train: GraspReader, val: GraspReader, test: GraspReader
) -> Splits:
    """The splits of a grasp data set; images are uint8 (`optical`) only if all channels are colors."""
    optical = channels == "rgb"
    return Splits(
        name, CLASSES, CHANNEL_NAMES[channels], optical, train=train, val=val, test=test, task="grasp"
    )
