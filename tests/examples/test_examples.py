"""The programs in examples/ run, and stay short."""

import json
import runpy
from pathlib import Path

import pytest

from distill.losses.registry import SEGMENTATION_LOSSES
from tests.conftest import ROOT
from tests.deploy.tiny import make_bundle

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SMALL = {"arch": "pspnet/test_efficientnet", "head_channels": 16}
SHORT = {"baseline": False, "int8.enabled": False, "teacher": SMALL, "student": SMALL, "precision": "fp32"}
"""In float32, which the other tests of a process compute in: it can use one arithmetic only."""


def main_of(name: str):
    return runpy.run_path(str(ROOT / "examples" / name))["main"]


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_examples_are_short(file: Path):
    assert len(file.read_text(encoding="utf-8").splitlines()) < 80


@pytest.mark.slow
def test_train_and_deploy(tmp_path: Path):
    shares = main_of("train_and_deploy.py")(tmp_path / "run", **SHORT)
    assert sum(shares.values()) == pytest.approx(1)


@pytest.mark.slow
def test_add_a_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(SEGMENTATION_LOSSES, "gce", None)  # removes what the program adds when the test ends
    report = main_of("add_a_loss.py")(tmp_path / "run", **SHORT, no_teacher=True)
    assert report.exists()
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["loss.task"] == "ce + 0.5*gce(q=0.5)"


def test_add_a_backend(tmp_path: Path):
    make_bundle(tmp_path / "tiny.bundle")
    assert main_of("add_a_backend.py")(tmp_path / "tiny.bundle") == 1
