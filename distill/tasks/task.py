"""The seam between tasks and everything that trains, exports, quantizes and reports.

A task is described twice: for the device in `deploy.tasks` (model, metric, files of labeled data), and here for
training. `distill.tasks.registry` lists both the tasks and what belongs to them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from deploy.bundle.manifest import InputSpec, OutputSpec
from deploy.evaluation.receipt import Sample as EvalSample
from deploy.tasks.task import Task
from distill.config import DataConfig, RunConfig
from distill.data.sample import Batch
from distill.data.splits import Splits
from distill.data.stats import Stats
from distill.data.structures import Structures
from distill.data.view import View
from distill.losses.distillation_loss import DistillationTerms
from distill.losses.registry import Loss

TaskLoss = Callable[[Tensor, Batch], Tensor]
"""From logits N×K×h×w and a batch to a scalar: the mean over labeled pixels, 0 with zero gradient if there are none."""

Head = Callable[[Tensor, Callable[[Tensor], Tensor]], tuple[Tensor, Tensor]]
"""The end of the exported graph: from scores N×K×h×w, as the network returns them, and a function that resizes maps of
their size to that of the input, to `labels` uint8 N×H×W and `logits` float32."""


class TrainingTask(Protocol):
    """A task as one run trains it."""

    @property
    def device(self) -> Task:
        """The same task on a device: metric, scorer, model, labeled data, pictures."""
        ...

    @property
    def outputs(self) -> int:
        """Maps that a network returns."""
        ...

    @property
    def qat_loss(self) -> str:
        """Distillation loss in simulated INT8 for a run whose own losses all compare features."""
        ...

    def check(self, config: RunConfig, splits: Splits, distillation: DistillationTerms) -> None:
        """Check the configuration against the task and the data.

        Raises:
            UserError: an option or a loss does not go with them; the message names the first.
        """
        ...

    def statistics(self, config: RunConfig, splits: Splits) -> Stats:
        """Statistics of the training split.

        Raises:
            UserError: it has no valid pixel.
        """
        ...

    def view(self, config: RunConfig, splits: Splits, stats: Stats, views: int = 0) -> View:
        """Augmented views of the training split: `views` fixed ones of each image, or new ones in every epoch if 0."""
        ...

    def loss(self, config: RunConfig, stats: Stats, device: torch.device) -> TaskLoss:
        """The task loss, of the output and of the auxiliary head."""
        ...

    def structures(self, config: DataConfig, splits: Splits) -> Structures | None:
        """What the training labels show at network scale; None if they are no classes, or have no valid pixel."""
        ...

    def depth_channel(self, splits: Splits) -> int | None:
        """Index of the input channel that is depth in meters, for `InputSpec.depth`; None if there is none."""
        ...

    def head(self, stats: Stats) -> Head:
        """The end of the exported graph."""
        ...

    def output_specs(self, spec: InputSpec, stats: Stats) -> tuple[OutputSpec, ...]:
        """The description of the outputs in the manifest."""
        ...

    def arrays(self, sample: Any, optical: bool) -> EvalSample:
        """A sample of a reader as a device gets it; the truth keeps its own size."""
        ...

    def metadata(self, stats: Stats) -> dict[str, Any]:
        """Entries of a checkpoint's metadata in addition to network, channels, classes and normalization."""
        ...

    def check_metadata(self, path: Path, metadata: Mapping[str, Any], stats: Stats) -> None:
        """Check that the outputs of a network that was trained elsewhere have the same meaning as here.

        Args:
            path: its checkpoint, for messages.
            metadata: of the checkpoint; has the entries of `metadata`, except in old checkpoints.
            stats: of the training split.

        Raises:
            UserError: they do not.
        """
        ...


@dataclass(frozen=True)
class PreparedData:
    """A data set with its statistics and its task, which all networks of a run share."""

    splits: Splits
    stats: Stats
    task: TrainingTask


@dataclass(frozen=True)
class TaskEntry:
    """A task and everything that is registered with it."""

    make: Callable[[RunConfig, Splits], TrainingTask]
    """Creates the task of a run. Raises `UserError` if `--loss.task` names a loss that the task does not have."""
    losses: Mapping[str, Loss]
    """The losses that `--loss.task` may name."""
    heading: str
    """Line above the losses in `edgedistill losses`."""
    datasets: Mapping[str, Callable[[DataConfig, int], Splits]]
    """The data sets by name: from configuration and seed to splits."""
