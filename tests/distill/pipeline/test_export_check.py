"""Students of other packages are exported before they are trained, and refused where that cannot be right."""

import sys

import pytest
import torch

from deploy.errors import UserError
from distill import run as script
from distill.pipeline import export_check
from distill.pipeline.export_check import check_export, export_difference
from distill.pipeline.networks import new_network
from distill.pipeline.prepare import prepare
from distill.tasks.registry import open_splits, task_of
from tests.teacher.external.hf_folders import saved

MODULE = '''
import torch
from torch import nn


class Plain(nn.Module):
    def __init__(self, in_channels, num_outputs):
        super().__init__()
        self.last = nn.Conv2d(in_channels, num_outputs, 3, 4, 1)

    def forward(self, x):
        return self.last(x)


class Reads(Plain):
    """Reads a value while it runs, which a graph cannot."""

    def forward(self, x):
        return self.last(x) if float(x.sum()) > 0 else self.last(2 * x)


class Draws(Plain):
    """Computes something else every time."""

    def forward(self, x):
        logits = super().forward(x)
        return logits + torch.randn_like(logits)
'''


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "own_student.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield "own_student"
    sys.modules.pop("own_student", None)


def opened(arch, *arguments):
    config = script.parse(["smoke", f"--student.arch={arch}", "--student.no-detail", *map(str, arguments)])
    splits = open_splits(config.data)
    return config, splits, task_of(config, splits)


def test_a_network_that_exports_exactly_passes(module):
    config, splits, task = opened(f"{module}:Plain")
    network = new_network(config, config.student, splits, task)
    assert export_difference(config, network, splits, task) < 1e-5
    check_export(config, splits, task)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Reads", r"cannot be exported to ONNX \(.+\); choose another"),
        ("Draws", r"the export computes something else"),
    ],
)
def test_others_are_refused_before_anything_is_written(module, tmp_path, capfd, name, words):
    arch = f"{module}:{name}"
    config = script.parse(
        [
            *(
                "smoke",
                "--precision=fp32",
                f"--student.arch={arch}",
                "--teacher.arch=pspnet/test_efficientnet",
            ),
            f"--out={tmp_path / 'run'}",
        ]
    )
    with pytest.raises(UserError, match=rf"--student\.arch {arch}: {words}") as caught:
        prepare(config)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "config.json").exists()
    assert "Traceback" not in "".join(capfd.readouterr())


def test_networks_of_this_project_are_not_tried(monkeypatch):
    monkeypatch.setattr(export_check, "export_difference", lambda *_: pytest.fail("tried"))
    check_export(*opened("edge-nano"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["segformer", "dinov2"])
def test_students_of_transformers_export_exactly(tmp_path, kind):
    saved(tmp_path, kind)
    config, splits, task = opened(f"hf/{tmp_path}")
    torch.manual_seed(0)
    network = new_network(config, config.student, splits, task)
    assert export_difference(config, network, splits, task) < 1e-4
