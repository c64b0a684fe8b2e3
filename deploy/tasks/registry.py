"""The tasks by name, and the task and model of a bundle."""

from collections.abc import Callable, Mapping
from pathlib import Path

from deploy.backends.engine import Engine
from deploy.bundle.manifest import Manifest
from deploy.errors import UserError
from deploy.tasks.task import Model, Task

# start-up time: a task is imported only when a bundle needs it


def _segmentation() -> Task:
    from deploy.tasks.segmentation.task import SEGMENTATION

    return SEGMENTATION


def _grasp() -> Task:
    from deploy.tasks.grasp.task import GRASP

    return GRASP


def _regression() -> Task:
    from deploy.tasks.regression.task import REGRESSION

    return REGRESSION


TASKS: Mapping[str, Callable[[], Task]] = {
    "segmentation": _segmentation,
    "grasp": _grasp,
    "regression": _regression,
}


def task_named(name: str) -> Task:
    """The task of that name.

    Raises:
        UserError: there is no such task.
    """
    if name not in TASKS:
        raise UserError(f"there is no task {name!r}, only {', '.join(TASKS)}; upgrade edgedistill")
    return TASKS[name]()


def task_of(manifest: Manifest) -> Task:
    """The task of a bundle."""
    return task_named(manifest.task)


def model_of(manifest: Manifest, engine: Engine) -> Model:
    """The model of a bundle on an engine.

    Raises:
        UserError: the manifest has a threshold or a temperature, but its task does not support them.
    """
    task = task_of(manifest)
    model = task.model(manifest.input, manifest.classes, engine, manifest.ignore_label)
    if (manifest.threshold, manifest.temperature) == (None, None):
        return model
    require_classes(manifest, manifest.name, "a threshold or a temperature")
    assert task.decide is not None
    return task.decide(model, manifest.threshold, manifest.temperature)


def require_classes(manifest: Manifest, name: str | Path, purpose: str) -> None:
    """Check that the labels of a bundle are classes.

    Args:
        manifest: of the bundle.
        name: of the bundle, in the message.
        purpose: what needs classes, in the message.

    Raises:
        UserError: the labels are not classes.
    """
    if task_of(manifest).decide is None:
        raise UserError(f"{name}: its task is {manifest.task}; {purpose} is for segmentation bundles")
