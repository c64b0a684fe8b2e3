"""What a data set is to the rest of the project: three readers and the meaning of their numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from deploy.bundle.manifest import ClassInfo
from deploy.tasks.grasp.geometry import MAPS


class Reader(Protocol):
    """Samples by position. Reading one twice gives the same sample."""

    @property
    def ids(self) -> Sequence[str]:
        """The name of each sample."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any:
        """A `Sample`, or a `GraspSample`, as the task of its `Splits` says."""
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
    task: Literal["segmentation", "grasp"] = "segmentation"
    """Samples are `Sample`s, or `distill.data.grasp.sample.GraspSample`s."""
    quality: Literal["clamp", "sigmoid"] = "clamp"
    """How the quality of grasps leaves the networks of a run (see `distill.losses.supervised.grasp`)."""

    @property
    def outputs(self) -> int:
        """Maps that a network gives: one for each class, or the four of a grasp."""
        return len(MAPS) if self.task == "grasp" else len(self.classes)

    @property
    def tested_on(self) -> str:
        """The name of the split that final scores come from: "val" where that is all there is, else "test"."""
        return "val" if self.test is self.val else "test"
