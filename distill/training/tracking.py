"""Experiment tracking in addition to the run's own files: Weights & Biases or MLflow, through accelerate's trackers.

All stages of a run are one run of the tracker. Its parameters are the configuration, and its metrics are those of
`metrics.jsonl` prefixed with the stage (`student/loss`). Only the main process logs. The environment variables of the
service select the destination (WANDB_MODE, WANDB_PROJECT, MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME).
"""

import os
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from deploy.errors import UserError
from deploy.files.atomic import write_json
from deploy.files.json_files import read_record
from distill.config import RunConfig
from distill.run_folder import settings
from distill.training.log import say

PROJECT = "edgedistill"


def require_tracker(name: str) -> None:
    """Check that the package of a tracker is installed.

    Raises:
        UserError: it is not; the message names the command that installs it.
    """
    if name != "none" and find_spec(name) is None:
        raise UserError(f"--tracker {name} needs a package: pip install 'edgedistill[{name}]'")


def start_tracker(accelerator: Accelerator, config: RunConfig) -> None:
    """Start the tracker that `accelerator` was created with; a resumed run continues its earlier tracker run.

    Raises:
        UserError: the service failed to start.
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
    except Exception as error:  # each service has its own types
        accelerator.trackers.clear()
        raise UserError(f"--tracker {name}: {_line(error)}; fix it, or leave the option out") from error


def track(accelerator: Accelerator, stage: str, values: Mapping[str, float], step: int) -> None:
    """Log the `values` of a stage at `step`. A tracker that fails is dropped with a warning."""
    named: dict[str, float] = {f"{stage}/{name}": value for name, value in values.items()}
    for tracker in _trackers(accelerator):
        try:
            if tracker.name == "wandb":  # its own step cannot decrease, but every stage counts from 1
                tracker.log({**named, "step": step})
            else:
                tracker.log({_mlflow_name(name): value for name, value in named.items()}, step=step)
        except Exception as error:
            _give_up(accelerator, tracker, error)


def stop_tracker(accelerator: Accelerator) -> None:
    """End the tracker run; a failure is only a warning."""
    for tracker in _trackers(accelerator):
        try:
            tracker.finish()
        except Exception as error:
            _give_up(accelerator, tracker, error)
    accelerator.trackers.clear()


def _options(name: str, config: RunConfig, identity: str | None) -> dict[str, Any]:
    """Options of accelerate's tracker of that name; `identity` is that of the tracker run to continue."""
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
    """The identity of the tracker's run that an earlier process has started."""
    if not place.exists():
        return None
    return read_record(place, dict[str, str], f"delete it, and {name} starts a new log").get(name)


def _mlflow_name(name: str) -> str:
    """A metric's name with `_` for the characters that MLflow refuses, such as those in `success@5` and `δ<1.25`."""
    return re.sub(r"[^\w.:/ -]", "_", name)


def _trackers(accelerator: Accelerator) -> list[Any]:
    """accelerate's trackers, each with `name`, `tracker`, `log` and `finish`; empty except in the main process."""
    return list(accelerator.trackers)


def _identity(tracker: Any) -> str:
    """The service's id of the run, with which a resumed run continues it."""
    run = tracker.tracker
    if tracker.name == "mlflow":
        return run.info.run_id
    run.define_metric("*", step_metric="step")
    return run.id


def _give_up(accelerator: Accelerator, tracker: Any, error: Exception) -> None:
    say(f"warning: {tracker.name} failed ({_line(error)}); the run continues without it")
    accelerator.trackers.remove(tracker)


def _line(error: Exception) -> str:
    """The first line of an error's message, or its type if it has none."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
