"""The tasks by name, and what a bundle's task makes of it."""

from collections.abc import Callable, Mapping
from pathlib import Path

from deploy.backends.engine import Engine
from deploy.bundle.manifest import Manifest
from deploy.errors import UserError
from deploy.tasks.task import Model, Task

# A task is imported when a bundle asks for it: a device starts faster without the others.


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
        UserError: a threshold or a temperature in the manifest of a task that has no use for them.
    """
    task = task_of(manifest)
    model = task.model(manifest.input, manifest.classes, engine, manifest.ignore_label)
    if (manifest.threshold, manifest.temperature) == (None, None):
        return model
    require_classes(manifest, manifest.name, "a threshold or a temperature")
    assert task.decide is not None
    return task.decide(model, manifest.threshold, manifest.temperature)


def require_classes(manifest: Manifest, name: str | Path, purpose: str) -> None:
    """Raise `UserError` where the labels of a bundle are not classes; `name` is what the message calls the bundle."""
    if task_of(manifest).decide is None:
        raise UserError(f"{name}: its task is {manifest.task}; {purpose} is for segmentation bundles")
