"""Commands that go over images know how many there are, so that they can tell how long the rest takes."""

from pathlib import Path

import pytest

from deploy import heartbeat
from deploy.tasks.segmentation.model import SegmentationModel
from distill import cli
from tests.deploy.two_classes import IMAGES, make_two_class_bundle


@pytest.fixture
def told(tmp_path: Path, monkeypatch) -> list[str]:
    """What a line of progress would say whenever a model predicts, in a folder with two runs."""
    for name in ("run", "other"):
        make_two_class_bundle(tmp_path / name / "student.bundle")
    monkeypatch.chdir(tmp_path)
    found: list[str] = []
    predict = SegmentationModel.__call__

    def spied(self, image):
        found.append(heartbeat._position())
        return predict(self, image)

    monkeypatch.setattr(SegmentationModel, "__call__", spied)
    return found


@pytest.mark.parametrize(
    "command",
    [
        "evaluate run run --worst 0 --backend onnxruntime",
        "threshold run/student.bundle --backend onnxruntime",
        "compare run other --worst 0 --backend onnxruntime",
        "build run/student.bundle --backend onnxruntime --precision fp32",
        "predict run run/data/test/images --json --backend onnxruntime",
    ],
)
def test_the_number_of_images_is_known(command, told):
    assert cli.main(command.split()) == 0
    totals = {position.rpartition(" of ")[2] for position in told if position}
    assert totals == {f"{IMAGES}, "}
    assert {f"{done} of {IMAGES}, " for done in range(IMAGES)} <= set(told)
