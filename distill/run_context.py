"""What all stages of a run share."""

from dataclasses import dataclass, replace

from accelerate import Accelerator

from deploy.bundle.manifest import InputSpec
from distill.config import RunConfig
from distill.data.splits import Splits
from distill.data.stats import Stats
from distill.losses.distillation_loss import DistillationTerms, parse_distillation
from distill.tasks.registry import task_of
from distill.tasks.task import PreparedData, TrainingTask


@dataclass(frozen=True)
class RunContext:
    """A run whose configuration has been checked and whose data is open."""

    config: RunConfig
    data: PreparedData
    spec: InputSpec
    terms: DistillationTerms
    """What the student learns from its teacher, parsed."""
    accelerator: Accelerator

    def with_config(self, config: RunConfig) -> "RunContext":
        """The same data and machine under another configuration, for other losses and trainings.

        Raises:
            UserError: a loss that cannot be parsed or that the task does not have.
        """
        data = replace(self.data, task=task_of(config, self.splits))
        terms = terms_of(config)
        return replace(self, config=config, data=data, terms=terms)

    @property
    def splits(self) -> Splits:
        """The data set."""
        return self.data.splits

    @property
    def stats(self) -> Stats:
        """Statistics of its training split."""
        return self.data.stats

    @property
    def task(self) -> TrainingTask:
        """What the networks are for."""
        return self.data.task


def terms_of(config: RunConfig) -> DistillationTerms:
    """The distillation losses of a run, parsed; those of images without labels only where it has such images.

    Raises:
        UserError: as `parse_distillation`.
    """
    distill, data = config.distill, config.data
    terms = parse_distillation(distill.loss, distill.aux, distill.unlabeled_loss, distill.unlabeled_aux)
    return terms if data.unlabeled or data.labels else terms._replace(unlabeled=(), unlabeled_aux=())
