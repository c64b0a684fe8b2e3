"""The moment at which a run takes its folder: once nothing can refuse it any more, and before it trains."""

from collections.abc import Mapping
from dataclasses import dataclass

from accelerate import Accelerator

from deploy.files.atomic import write_json
from distill.config import RunConfig
from distill.pipeline.student_choice import write_choice
from distill.run_context import RunContext
from distill.run_folder import SCHEDULE, Origin, claim_folder
from distill.selection.choice import StudentChoice
from distill.training.distributed import main_alone
from distill.training.tracking import start_tracker

STATISTICS = "stats.json"
"""Statistics of the training split, in the run's folder."""


@dataclass(frozen=True)
class CheckedRun:
    """A run that has been checked, of which nothing has been written yet."""

    config: RunConfig
    """As it was asked for, before a student was chosen by its speed: what `config.json` records."""
    context: RunContext
    origin: Origin
    choice: StudentChoice | None


def claim(run: CheckedRun, schedule: Mapping[str, object] | None = None) -> None:
    """Start the run's tracker, and write what is known of the run into its folder.

    Whatever is refused before leaves nothing there, so that the corrected command can have the same folder.

    Args:
        run: what is about to train.
        schedule: what was reduced to fit the time, where that is to be recorded (see `fit_to_time`).

    Raises:
        UserError: the tracker does not start, or the folder has come to hold another run.
    """
    accelerator = run.context.accelerator
    main_alone(lambda: start_tracker(accelerator, run.context.config), accelerator)
    main_alone(lambda: _write(run, schedule), accelerator)


def computed_by(accelerator: Accelerator) -> dict[str, object]:
    """The settings in `config.json` that come from the machine."""
    return {"arithmetic": accelerator.mixed_precision, "processes": accelerator.num_processes}


def _write(run: CheckedRun, schedule: Mapping[str, object] | None) -> None:
    folder = run.config.out
    claim_folder(run.config, computed_by(run.context.accelerator), run.origin)
    write_json(folder / STATISTICS, run.context.stats)
    write_choice(run.config, run.choice)
    if schedule is not None:
        write_json(folder / SCHEDULE, schedule)
