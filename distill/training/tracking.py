"""Experiment logs beside the run's own files: Weights & Biases or MLflow, by accelerate's trackers.

A run of ours is one run there, whatever it trains: its configuration is the parameters, and the metrics are those of
`metrics.jsonl` with the stage before their names (`student/loss`). Only the main process logs. Where a log goes follows
from the service's own environment variables (WANDB_MODE, WANDB_PROJECT, MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME).
"""

import json
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from deploy.errors import UserError
from deploy.files.atomic import write_json
from distill.config import RunConfig
from distill.run_folder import settings
from distill.training.log import say

PROJECT = "edgedistill"


def require_tracker(name: str) -> None:
    """Raise UserError, naming the command that installs it, where the package of a tracker is missing."""
    if name != "none" and find_spec(name) is None:
        raise UserError(f"--tracker {name} needs a package: pip install 'edgedistill[{name}]'")


def start_tracker(accelerator: Accelerator, config: RunConfig) -> None:
    """Begin the log of a run with the tracker that `accelerator` was made with; a resumed run goes on with its own.

    Raises:
        UserError: the service did not let us.
    """
    if not accelerator.log_with:
        return
    name, place = config.tracker, config.out / "tracker.json"
    try:
        project = os.environ.get("WANDB_PROJECT", PROJECT) if name == "wandb" else PROJECT
        options = _options(name, config, _known(place, name))
        accelerator.init_trackers(project, settings(config), {name: options})
        for tracker in _trackers(accelerator):
            write_json(place, {name: _identity(tracker)})
    except Exception as error:  # each service has its own
        accelerator.trackers.clear()
        raise UserError(f"--tracker {name}: {_line(error)}; mend it, or leave the option out") from error


def track(accelerator: Accelerator, stage: str, values: Mapping[str, float], step: int) -> None:
    """Log the `values` of a stage as of `step`. A tracker that fails is warned of and not asked again."""
    named: dict[str, float] = {f"{stage}/{name}": value for name, value in values.items()}
    for tracker in _trackers(accelerator):
        try:
            if tracker.name == "wandb":  # takes no step back, and every stage counts from 1
                tracker.log({**named, "step": step})
            else:
                tracker.log(named, step=step)
        except Exception as error:
            _give_up(accelerator, tracker, error)


def stop_tracker(accelerator: Accelerator) -> None:
    """End the log of a run; as if nothing were the matter where that fails."""
    for tracker in _trackers(accelerator):
        try:
            tracker.finish()
        except Exception as error:
            _give_up(accelerator, tracker, error)
    accelerator.trackers.clear()


def _options(name: str, config: RunConfig, identity: str | None) -> dict[str, Any]:
    """What accelerate's tracker of that name is made with; `identity` is of the run to go on with."""
    if name == "mlflow":
        return {"run_id": identity, "run_name": config.out.name}
    return {
        "name": config.out.name,
        "id": identity,
        "resume": "allow",
        "dir": str(config.out),
        "settings": {"console": "off"},
    }


def _known(place: Path, name: str) -> str | None:
    return json.loads(place.read_text()).get(name) if place.exists() else None


def _trackers(accelerator: Accelerator) -> list[Any]:
    """accelerate's trackers, each with `name`, `tracker`, `log` and `finish`; none in all but the main process."""
    return list(accelerator.trackers)


def _identity(tracker: Any) -> str:
    """What the service calls the run, for the next process to go on with it."""
    run = tracker.tracker
    if tracker.name == "mlflow":
        return run.info.run_id
    run.define_metric("*", step_metric="step")
    return run.id


def _give_up(accelerator: Accelerator, tracker: Any, error: Exception) -> None:
    say(f"warning: {tracker.name} failed ({_line(error)}); the run goes on without it")
    accelerator.trackers.remove(tracker)


def _line(error: Exception) -> str:
    """The first line of an error, or its name."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
