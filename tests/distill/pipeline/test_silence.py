"""What takes long between trainings is told of while it goes on."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from deploy.errors import UserError
from deploy.evaluation.metric import MIOU
from distill.pipeline import qat_stage, stages
from distill.run import preset

TASK = SimpleNamespace(device=SimpleNamespace(metric=MIOU))


@pytest.fixture
def told(monkeypatch):
    """What is told of within each of the calls that take long."""
    calls, blocks = [], []

    @contextmanager
    def working(what, say):
        blocks.append(what)
        yield
        blocks.remove(what)

    def validate(*_):
        calls.append(tuple(blocks))
        return {"miou": 0.5}

    for module in (stages, qat_stage):
        monkeypatch.setattr(module, "working", working)
        monkeypatch.setattr(module, "validate", validate)
    return SimpleNamespace(calls=calls, blocks=blocks)


def test_a_ready_made_teacher_is_validated(told, monkeypatch):
    network = torch.nn.Identity()
    network.source = "a bundle"
    monkeypatch.setattr(stages, "ready_teacher", lambda *_: network)
    config = SimpleNamespace(ready_made=True, distill=SimpleNamespace(weight=1.0), resume=False)
    accelerator = SimpleNamespace(device="cpu")
    context = SimpleNamespace(config=config, splits=None, stats=None, accelerator=accelerator, task=TASK)
    assert stages.the_teacher(context).arch == "a bundle"
    assert told.calls == [("validating the teacher",)]


def test_both_validations_around_simulated_int8(told):
    config = SimpleNamespace(int8=SimpleNamespace(max_drop=0.01))
    assert qat_stage.worth_keeping(SimpleNamespace(config=config, task=TASK), None, None)
    assert told.calls == [("validating the student before and in simulated INT8",)] * 2


def test_simulated_int8_is_calibrated(told, monkeypatch):
    def to_qat(*_, **__):
        told.calls.append(tuple(told.blocks))
        raise UserError("no convolution")

    stage = SimpleNamespace(view=None, order=None, mean=None, std=None)
    monkeypatch.setattr(qat_stage, "training_stage", lambda *_, **__: stage)
    monkeypatch.setattr(qat_stage, "train_batches", lambda *_, **__: [None])
    monkeypatch.setattr(qat_stage, "normalized", lambda *_, **__: torch.zeros(2, 1, 1, 1))
    monkeypatch.setattr(qat_stage, "to_qat", to_qat)
    accelerator = SimpleNamespace(device="cpu")
    context = SimpleNamespace(
        config=preset("smoke"), with_config=lambda config: config, accelerator=accelerator
    )
    assert qat_stage.train_qat(context, torch.nn.Identity(), None) is None
    assert told.calls == [("calibrating simulated INT8",)]
