"""Training with torch.compile: the same steps, and no trace of it in checkpoints, evaluation or export."""

import os
import signal
from dataclasses import replace
from functools import partialmethod

import pytest
import torch
from torch import nn

from distill.config import AugmentConfig, DataConfig, TrainConfig
from distill.data.train_view import TrainView
from distill.tasks.registry import open_splits
from distill.training.checkpoint import load_checkpoint
from distill.training.loop import train
from distill.training.optim import learning_rate
from distill.training.stage import Interrupted, Stage
from tests.distill.tiny import CE, tiny_net

pytestmark = pytest.mark.slow

# Not Adam: a bias before a batch norm has only rounding errors as gradient, which Adam would scale to full steps.
CONFIG = TrainConfig(steps=4, batch_size=4, optimizer="sgd", lr=0.05, checkpoint_every=2)


@pytest.fixture
def stage(tmp_path, monkeypatch):
    # a C++ compiler would take minutes, and is not everywhere
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="aot_eager"))
    splits = open_splits(DataConfig("synthetic", size=(32, 32), synthetic_counts=(10, 1, 1)))
    crop = AugmentConfig(crop=(24, 24))
    view = TrainView(splits.train, size=(32, 32), augment=crop, mean=(-12.0, -19.0), optical=False)
    mean, std = torch.tensor([-12.0, -19.0]).view(-1, 1, 1), torch.full((2, 1, 1), 5.0)
    return Stage("tiny", tmp_path / "tiny", view, mean, std, CE, seed=0)


def weights(network):
    return torch.cat([value.flatten().double() for value in network.state_dict().values()])


def trained(stage, config, accelerator, **options):
    network = tiny_net()
    train(network, stage, config, accelerator, **options)
    return weights(network)


@pytest.mark.parametrize("masked", [False, True])
def test_compiled_training_is_the_same_and_leaves_a_plain_network(stage, accelerator, tmp_path, masked):
    config = replace(CONFIG, ema=0.5, masked_norm=masked)

    def evaluate(network):
        assert network._compiled_call_impl is None
        return {"miou": 0.5}

    plain, network = tiny_net(), tiny_net()
    train(plain, replace(stage, folder=tmp_path / "plain", evaluate=evaluate), config, accelerator)
    compiled = replace(stage, folder=tmp_path / "compiled", evaluate=evaluate)
    train(network, compiled, replace(config, compile=True), accelerator)
    assert weights(network).isfinite().all()
    torch.testing.assert_close(weights(network), weights(plain), rtol=1e-3, atol=1e-4)
    assert list(network.state_dict()) == list(plain.state_dict())
    saved, of_plain = (
        load_checkpoint(tmp_path / name / "last.safetensors")[0] for name in ("compiled", "plain")
    )
    assert list(saved) == list(of_plain)
    exported = torch.export.export(network.eval(), (torch.zeros(1, 2, 24, 24),))
    assert exported.graph is not None


def test_compiled_training_resumes(stage, accelerator, monkeypatch, tmp_path):
    config = replace(CONFIG, compile=True)
    straight = trained(replace(stage, folder=tmp_path / "straight"), config, accelerator)

    def interrupt(step):
        if step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return learning_rate(config, step)

    with monkeypatch.context() as patch:
        patch.setattr("distill.training.loop.learning_rate", lambda _, step: interrupt(step))
        with pytest.raises(Interrupted, match="stopped after step 1"):
            trained(stage, config, accelerator)
    assert torch.equal(trained(stage, config, accelerator, resume=True), straight)
