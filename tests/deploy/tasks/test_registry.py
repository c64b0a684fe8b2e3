"""The tasks by name, and the model that a bundle's task makes."""

import msgspec
import pytest

from deploy.bundle.manifest import Manifest, OutputSpec
from deploy.errors import UserError
from deploy.tasks.registry import TASKS, model_of, require_classes, task_named, task_of
from tests.conftest import run_python
from tests.deploy.precisions import FakeEngine
from tests.deploy.tiny import make_manifest


def manifest_of(task: str, **changes: object) -> Manifest:
    return msgspec.structs.replace(make_manifest("sar"), task=task, **{"outputs": ()} | changes)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_the_name_it_is_found_by(name):
    assert task_named(name).name == name
    assert task_of(manifest_of(name)) is task_named(name)


def test_an_unknown_task_asks_for_an_upgrade():
    with pytest.raises(
        UserError, match=r"there is no task 'depth', only segmentation, .*; upgrade edgedistill"
    ):
        task_named("depth")


@pytest.mark.parametrize("name", sorted(set(TASKS) - {"segmentation"}))
def test_thresholds_are_for_classes_only(name):
    engine = FakeEngine("a fake")
    assert model_of(manifest_of(name), engine).engine.name == "a fake"
    with pytest.raises(
        UserError, match=rf"its task is {name}; a threshold or a temperature is for segmentation"
    ):
        model_of(manifest_of(name, temperature=2.0), engine)
    with pytest.raises(UserError, match=rf"^b: its task is {name}; quantizing is for segmentation bundles"):
        require_classes(manifest_of(name), "b", "quantizing")
    require_classes(manifest_of("segmentation"), "b", "quantizing")


@pytest.mark.parametrize(("name", "maps"), [("segmentation", 2), ("grasp", 4), ("regression", 1)])
def test_the_number_of_maps_is_that_of_the_task(name, maps):
    for told in (1, 2, 4):
        manifest = manifest_of(name, outputs=(OutputSpec("logits", "float32", ("N", told, 4, 6), "maps"),))
        if told == maps:
            model_of(manifest, FakeEngine())
        else:
            with pytest.raises(UserError, match=rf"its logits have {told} maps, but {name} .* has {maps};"):
                model_of(manifest, FakeEngine())


@pytest.mark.parametrize("name", ["segmentation", "regression"])
def test_depth_is_for_grasps(name):
    spec = msgspec.structs.replace(make_manifest("sar").input, depth=0)
    model_of(manifest_of("grasp", input=spec), FakeEngine())
    with pytest.raises(UserError, match=rf"input\.depth is for grasps, its task is {name}"):
        model_of(manifest_of(name, input=spec), FakeEngine())


def test_a_task_is_imported_without_the_others():
    code = "import sys; from deploy.tasks.registry import task_named; task_named('segmentation')\n"
    result = run_python(code + "print([name for name in sys.modules if name.startswith('deploy.tasks.')])")
    imported = result.stdout
    assert "deploy.tasks.segmentation.task" in imported, result.stderr
    assert not any(f"deploy.tasks.{name}." in imported for name in set(TASKS) - {"segmentation"})
