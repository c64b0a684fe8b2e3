"""A training that was killed or interrupted resumes from its checkpoint, bit for bit."""

import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from distill.config import TrainConfig
from distill.training.checkpoint import load_checkpoint, save_checkpoint
from distill.training.optim import learning_rate
from distill.training.stage import Interrupted
from tests.distill.tiny import tiny_net
from tests.distill.training.small_training import ADAMW, RMSPROP, SGD, trained


@pytest.mark.parametrize(
    "config",
    [
        SGD,
        ADAMW,
        replace(SGD, ema=0.9),
        replace(ADAMW, accumulate=2),
        replace(SGD, masked_norm=True),
        RMSPROP,
    ],
)
@pytest.mark.parametrize("stop_after", [3, 6])
def test_resuming_from_any_checkpoint_is_bit_exact(
    stage, tmp_path, accelerator, config, stop_after, monkeypatch
):
    straight = trained(stage, config, accelerator)
    # A kill leaves the file that was last renamed into place: use a copy of a stage killed right after a checkpoint.
    killed = replace(stage, folder=tmp_path / "killed")

    class Killed(BaseException):
        pass

    def die_after_saving(path, tensors, meta):
        save_checkpoint(path, tensors, meta)
        if path.name == "last.safetensors" and meta["step"] == stop_after:
            raise Killed

    monkeypatch.setattr("distill.training.train_state.save_checkpoint", die_after_saving)
    with pytest.raises(Killed):
        trained(killed, config, accelerator)
    monkeypatch.undo()
    torch.rand(7)  # the new process has another random state
    resumed = trained(killed, config, accelerator, resume=True)
    assert torch.equal(straight, resumed)
    lines = [json.loads(line) for line in (killed.folder / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if "loss" in line]
    assert steps == [2, 4, 6, 8]


def test_balanced_sampling_is_resumed_exactly(stage, tmp_path, accelerator):
    stage.view.augment = replace(stage.view.augment, balance=0.5, max_no_data=0.2)
    stage.view._occurring = [(0, np.array([1, 4])), (1, np.array([2]))]
    straight = trained(stage, ADAMW, accelerator)
    again = replace(stage, folder=tmp_path / "again")

    def interrupt(folder):
        if load_checkpoint(folder / "last.safetensors")[1]["step"] == 3:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "distill.training.train_state.save_checkpoint",
            lambda path, *rest: (save_checkpoint(path, *rest), interrupt(path.parent)),
        )
        with pytest.raises(KeyboardInterrupt):
            trained(again, ADAMW, accelerator)
    assert torch.equal(trained(again, ADAMW, accelerator, resume=True), straight)


@pytest.mark.parametrize("loss", ["feature(layer4) + cirkd(layer4)", "kl(t=2) + at(layer4)"])
def test_adapters_are_resumed_and_left_out_of_the_student(stage, tmp_path, accelerator, loss):
    """Adapters and memories continue bit for bit; the best weights contain neither these nor the teacher."""
    teacher = tiny_net(seed=9)
    straight = trained(stage, ADAMW, accelerator, teacher, loss)
    names = {name.split(".")[0] for name in load_checkpoint(stage.folder / "best.safetensors")[0]}
    assert names == {"model"}
    assert load_checkpoint(stage.folder / "best.safetensors")[0].keys() == {
        f"model.{name}" for name in tiny_net().state_dict()
    }
    killed = replace(stage, folder=tmp_path / "killed")

    class Killed(BaseException):
        pass

    def die(path, tensors, meta):
        save_checkpoint(path, tensors, meta)
        if path.name == "last.safetensors" and meta["step"] == 3:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distill.training.train_state.save_checkpoint", die)
        with pytest.raises(Killed):
            trained(killed, ADAMW, accelerator, teacher, loss)
    assert torch.equal(trained(killed, ADAMW, accelerator, teacher, loss, resume=True), straight)


def test_a_signal_saves_and_stops_between_steps(stage, accelerator, monkeypatch):
    straight = trained(replace(stage, folder=stage.folder / "straight"), SGD, accelerator)

    def interrupt_once(step):
        if step == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return learning_rate(SGD, step)

    monkeypatch.setattr("distill.training.loop.learning_rate", lambda _, step: interrupt_once(step))
    with pytest.raises(Interrupted, match="stopped after step 5 of tiny; continue with --resume"):
        trained(stage, SGD, accelerator)
    monkeypatch.undo()
    assert load_checkpoint(stage.folder / "last.safetensors")[1]["step"] == 5
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert torch.equal(trained(stage, SGD, accelerator, resume=True), straight)


def test_the_best_score_survives_a_resume(stage, accelerator, monkeypatch):
    scores = iter([0.9, 0.5, 0.3, 0.2])
    stage = replace(stage, evaluate=lambda network: {"miou": next(scores)})
    config = replace(SGD, eval_every=2)

    class Killed(BaseException):
        pass

    def die_at_six(path, tensors, meta):
        save_checkpoint(path, tensors, meta)
        if path.name == "last.safetensors" and meta["step"] == 6:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("distill.training.train_state.save_checkpoint", die_at_six)
        with pytest.raises(Killed):
            trained(stage, config, accelerator)
    trained(stage, config, accelerator, resume=True)
    assert load_checkpoint(stage.folder / "best.safetensors")[1] == {"step": 2, "miou": 0.9}


def test_a_plateau_is_resumed_exactly(stage, tmp_path, accelerator):
    """Killed between two evaluations without improvement, the training continues to count, and its rate falls."""
    config = TrainConfig(
        steps=10, batch_size=4, optimizer="rmsprop", lr=0.01, schedule="plateau", plateau_patience=1,
        eval_every=1, checkpoint_every=1, log_every=1, warmup=3,
    )  # fmt: skip
    scores = {1: 0.5, 2: 0.4, 3: 0.4, 4: 0.6}  # by step; 0.3 afterwards

    def scored(stage, start=0):
        steps = iter(range(start + 1, 100))
        return replace(stage, evaluate=lambda _: {"miou": scores.get(next(steps), 0.3)})

    def rates(stage):
        lines = [json.loads(line) for line in (stage.folder / "metrics.jsonl").read_text().splitlines()]
        return [line["lr"] for line in lines if "lr" in line]

    straight = trained(scored(stage), config, accelerator)
    full = [0.01 / 3, 0.02 / 3, 0.01, 0.01, 0.01, 0.01, 0.005, 0.005, 0.0025, 0.0025]
    assert rates(stage) == pytest.approx(full)

    class Killed(BaseException):
        pass

    for stop in (5, 6, 7):
        killed = replace(stage, folder=tmp_path / f"killed-{stop}")

        def die(path, tensors, meta, stop=stop):
            save_checkpoint(path, tensors, meta)
            if path.name == "last.safetensors" and meta["step"] == stop:
                raise Killed

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("distill.training.train_state.save_checkpoint", die)
            with pytest.raises(Killed):
                trained(scored(killed), config, accelerator)
        assert torch.equal(trained(scored(killed, stop), config, accelerator, resume=True), straight)
        assert rates(killed) == pytest.approx(full)
