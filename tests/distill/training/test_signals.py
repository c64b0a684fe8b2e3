"""What a training makes of signals that come more than once."""

import os
import signal
from dataclasses import replace

import pytest

from deploy.signals import Stopped
from distill.training.checkpoint import read_meta
from distill.training.stage import Interrupted
from tests.distill.training.small_training import SGD, trained


def test_a_second_signal_stops_at_once_and_saves_nothing(stage, accelerator, monkeypatch):
    def twice(parameters, norm):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(type(accelerator), "clip_grad_norm_", lambda _, *given: twice(*given))
    monkeypatch.setattr("distill.training.signals.SAME", 0.0)
    with pytest.raises(Stopped):
        trained(stage, replace(SGD, clip=1e9), accelerator)
    assert not (stage.folder / "last.safetensors").exists()


def test_a_signal_that_comes_twice_in_a_moment_is_one_request(stage, accelerator, monkeypatch):
    """SLURM signals all processes of a step, and torchrun, which is one of them, its workers once more."""

    def twice(parameters, norm):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(type(accelerator), "clip_grad_norm_", lambda _, *given: twice(*given))
    with pytest.raises(Interrupted, match="stopped after step 1"):
        trained(stage, replace(SGD, clip=1e9), accelerator)
    assert read_meta(stage.folder / "last.safetensors")["step"] == 1
