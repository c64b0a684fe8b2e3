"""Tasks meet the rest of training in one place: nothing else asks which task it is."""

import re

import pytest

from deploy.tasks import registry as device
from distill.tasks import registry
from tests.conftest import ROOT

FOLDERS = ("training", "pipeline", "distillation", "export", "quantization")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / "distill" / folder).rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_file_asks_for_the_task_or_knows_grasps(path):
    found = re.search(r"task\s*[!=]=|grasp", path.read_text(), re.IGNORECASE)
    assert found is None, found


def test_device_and_training_have_the_same_tasks():
    assert set(device.TASKS) == set(registry.TASKS)
    for name in registry.TASKS:
        assert device.task_named(name).name == name


def test_losses_of_all_tasks_are_listed():
    lines = list(registry.loss_lines())
    for name in ("ce", "lovasz_hinge", "bce", "l1", "kl", "cirkd"):
        assert any(line.startswith(f"{name}(") for line in lines), name


def test_an_unknown_task_of_a_bundle_is_refused():
    with pytest.raises(
        Exception, match="there is no task 'depth', only segmentation, grasp, regression; upgrade"
    ):
        device.task_named("depth")
