"""The tasks by name, and the task and model of a bundle."""

from collections.abc import Callable, Mapping
from pathlib import Path

from deploy.backends.checked import CheckedEngine
from deploy.backends.engine import Engine
from deploy.bundle.manifest import Manifest
from deploy.errors import UserError
from deploy.tasks.task import Model, Task
from deploy.text import shown

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
        UserError: the manifest has a threshold or a temperature, but its task does not support them; or it tells
            another number of maps than its task has, or a depth channel that its task does not read.
    """
    task = task_of(manifest)
    decides = (manifest.threshold, manifest.temperature) != (None, None)
    if decides:
        require_classes(manifest, manifest.name, "a threshold or a temperature")
    if manifest.input.depth is not None and not task.reads_depth:
        raise UserError(
            f"{manifest.name}: input.depth is for grasps, its task is {task.name}; export the bundle again"
        )
    checked = CheckedEngine(engine, manifest.input, len(manifest.classes), _maps(manifest, task))
    model = task.model(manifest.input, manifest.classes, checked, manifest.ignore_label)
    if not decides:
        return model
    assert task.decide is not None
    return task.decide(model, manifest.threshold, manifest.temperature)


def _maps(manifest: Manifest, task: Task) -> int:
    """Number of maps in the logits."""
    maps = task.maps or len(manifest.classes)
    for output in manifest.outputs:
        if output.name == "logits" and len(output.shape) == 4 and output.shape[1] != maps:
            raise UserError(
                f"{manifest.name}: its logits have {shown(str(output.shape[1]))} maps, but {task.name} with "
                f"{len(manifest.classes)} classes has {maps}; export the bundle again"
            )
    return maps


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


def require_labels_alone(manifest: Manifest) -> None:
    """Check that the labels of a bundle are the network's own, so that its logits are not needed.

    Raises:
        UserError: a threshold decides them, tiles are blended, or the task decodes them from the logits.
    """
    reasons = {
        f"its task, {manifest.task}, reads them": task_of(manifest).decide is None,
        "its threshold is applied to them": manifest.threshold is not None,
        "tiles are blended by them": manifest.input.resize == "tile",
    }
    if why := next((reason for reason, applies in reasons.items() if applies), ""):
        raise UserError(f"{manifest.name}: logits=False: {why}; leave it out")
