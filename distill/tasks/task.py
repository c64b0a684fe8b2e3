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
from distill.data.view import View
from distill.losses.distillation_loss import DistillationTerms
from distill.losses.expression import Term
from distill.losses.registry import Loss

TaskLoss = Callable[[Tensor, Batch], Tensor]
"""From logits N×K×h×w and a batch to a scalar: the mean over valid pixels, 0 with zero gradient if there are none."""

Head = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""The end of the exported graph: from scores N×K×H×W at the input's size and N×K×h×w as the network returns them to
`labels` uint8 N×H×W and `logits` float32."""


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
    def terms(self) -> tuple[Term, ...]:
        """The terms of `--loss.task`."""
        ...

    @property
    def qat_loss(self) -> str:
        """What the teacher teaches in simulated INT8 where the run's losses are on features alone."""
        ...

    def check(self, config: RunConfig, splits: Splits, distillation: DistillationTerms) -> None:
        """Raise `UserError` naming the first option or loss that does not go with the task or the data."""
        ...

    def statistics(self, config: RunConfig, splits: Splits) -> Stats:
        """Statistics of the training split. Raises `UserError` where it has no valid pixel."""
        ...

    def view(self, config: RunConfig, splits: Splits, stats: Stats, views: int = 0) -> View:
        """Augmented views of the training split; `views` fixed ones of each image, 0 = new ones in every epoch."""
        ...

    def loss(self, config: RunConfig, stats: Stats, device: torch.device) -> TaskLoss:
        """The task loss, of the output and of the auxiliary head."""
        ...

    def depth_channel(self, splits: Splits) -> int | None:
        """Position of an input channel that is depth in meters, for `InputSpec.depth`; None: there is none."""
        ...

    def head(self, stats: Stats) -> Head:
        """The end of the exported graph."""
        ...

    def output_specs(self, spec: InputSpec, stats: Stats) -> tuple[OutputSpec, ...]:
        """What the manifest says of the outputs."""
        ...

    def arrays(self, sample: Any, optical: bool) -> EvalSample:
        """A sample of a reader as a device gets it; the truth keeps its own size."""
        ...

    def metadata(self, stats: Stats) -> dict[str, Any]:
        """What a checkpoint says of its training beside network, channels, classes and normalization."""
        ...

    def check_metadata(self, path: Path, metadata: Mapping[str, Any], stats: Stats) -> None:
        """Raise `UserError` where a network trained elsewhere gives other numbers than those trained here."""
        ...


@dataclass(frozen=True)
class PreparedData:
    """A data set with its statistics and its task: what networks of one run have in common."""

    splits: Splits
    stats: Stats
    task: TrainingTask


@dataclass(frozen=True)
class TaskEntry:
    """What `distill.tasks.registry` knows of a task."""

    make: Callable[[RunConfig, Splits], TrainingTask]
    """The task of a run. Raises `UserError` for a `--loss.task` that the task does not have."""
    losses: Mapping[str, Loss]
    """The losses that `--loss.task` may name."""
    heading: str
    """Above them in `edgedistill losses`."""
    datasets: Mapping[str, Callable[[DataConfig, int], Splits]]
    """The data sets by name: from configuration and seed to splits."""
