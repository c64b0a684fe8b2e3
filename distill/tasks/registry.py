"""The tasks of training by name, their presets, and functions that find the task and the data set of a run.

A task is imported only when it is used (start-up time: listing presets must not load torch).
"""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from deploy.errors import UserError, did_you_mean
from distill import presets
from distill.config import DataConfig, RunConfig
from distill.tasks.regression.preset import quick_depth

if TYPE_CHECKING:
    from distill.data.splits import Splits
    from distill.tasks.task import TaskEntry, TrainingTask


def _segmentation() -> "TaskEntry":
    from distill.tasks.segmentation import ENTRY

    return ENTRY


def _grasp() -> "TaskEntry":
    from distill.tasks.grasp import ENTRY

    return ENTRY


def _regression() -> "TaskEntry":
    from distill.tasks.regression.task import ENTRY

    return ENTRY


TASKS: Mapping[str, Callable[[], "TaskEntry"]] = {
    "segmentation": _segmentation,
    "grasp": _grasp,
    "regression": _regression,
}
"""By the name in `Splits.task` and in the manifest, as `deploy.tasks.registry.TASKS`."""

PRESETS: Mapping[str, Callable[[], RunConfig]] = {**presets.PRESETS, "quick-depth": quick_depth}


def task_named(name: str) -> "TaskEntry":
    """The task of that name, a key of `TASKS`."""
    return TASKS[name]()


def task_of(config: RunConfig, splits: "Splits") -> "TrainingTask":
    """Create the task of a run.

    Raises:
        UserError: `--loss.task` names a loss that the task of the data does not have.
    """
    return task_named(splits.task).make(config, splits)


def open_splits(config: DataConfig, seed: int = 0) -> "Splits":
    """Open the data set of a configuration.

    Args:
        config: name, folder and channels.
        seed: determines the scenes of built-in data; the splits of real data never depend on it.

    Raises:
        UserError: no data set has that name, or the data is missing (the message says where to get it) or not laid out
            as expected.
    """
    openers = {name: opener for task in TASKS.values() for name, opener in task().datasets.items()}
    if config.name not in openers:
        hint = did_you_mean(config.name, openers)
        raise UserError(f"--data.name {config.name}: no such data set{hint}; there are {', '.join(openers)}")
    return openers[config.name](config, seed)


def loss_lines() -> Iterator[str]:
    """Yield a line per loss: those of each task and those against a teacher, each group under a heading."""
    from distill.losses.registry import DISTILLATION_LOSSES, lines_of  # start-up time: torch

    for task in TASKS.values():
        yield task().heading
        yield from lines_of(task().losses)
        yield ""
    yield "of a teacher (--distill.loss), added up with weights: kl(t=2) + 3*cwd(layer4, t=4)"
    yield from lines_of(DISTILLATION_LOSSES)
    yield "FEATURE is layer3, layer4 or head of a PSPNet"
