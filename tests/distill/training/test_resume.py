"""A training that was killed or interrupted resumes from its checkpoint, bit for bit."""

import json
import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from distill.config import TrainConfig
from distill.data.loader import train_batches
from distill.training.checkpoint import load_checkpoint, read_meta, save_checkpoint
from distill.training.loop import Training
from distill.training.stage import Interrupted
from distill.training.train_state import finished
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


@pytest.mark.parametrize("config", [ADAMW, replace(SGD, accumulate=2, masked_norm=True)])
def test_mixed_batches_are_resumed_exactly(mixed_stage, tmp_path, accelerator, config):
    teacher, distill = tiny_net(seed=9), {"min_confidence": 0.52}
    straight = trained(mixed_stage, config, accelerator, teacher, distill=distill)
    again = replace(mixed_stage, folder=tmp_path / "again")

    def die_after_saving(path, tensors, meta):
        save_checkpoint(path, tensors, meta)
        if path.name == "last.safetensors" and meta["step"] == 3:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distill.training.train_state.save_checkpoint", die_after_saving)
        with pytest.raises(KeyboardInterrupt):
            trained(again, config, accelerator, teacher, distill=distill)
    resumed = trained(again, config, accelerator, teacher, distill=distill, resume=True)
    assert torch.equal(resumed, straight)


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_and_stops_between_steps(stage, accelerator, monkeypatch, number):
    straight = trained(replace(stage, folder=stage.folder / "straight"), SGD, accelerator)
    before = signal.getsignal(number)

    def interrupt_once(parameters, norm):
        monkeypatch.undo()
        os.kill(os.getpid(), number)

    config = replace(SGD, clip=1e9)  # called in the middle of a step
    monkeypatch.setattr(type(accelerator), "clip_grad_norm_", lambda _, *given: interrupt_once(*given))
    with pytest.raises(Interrupted, match="stopped after step 1 of tiny; continue with --resume") as caught:
        trained(stage, config, accelerator)
    assert caught.value.exit_code == 128 + number
    assert load_checkpoint(stage.folder / "last.safetensors")[1]["step"] == 1
    assert signal.getsignal(number) is before
    torch.testing.assert_close(trained(stage, config, accelerator, resume=True), straight)


@pytest.mark.parametrize("at", [4, 8], ids=["on the way", "the last one"])
def test_a_signal_interrupts_an_evaluation_which_is_done_again(stage, accelerator, at):
    config = replace(SGD, steps=8, eval_every=4, ema=0.9)
    seen = []

    def evaluate(network):
        seen.append(network)
        return {"miou": 0.5 + 0.01 * len(seen)}

    straight = trained(
        replace(stage, folder=stage.folder / "straight", evaluate=evaluate), config, accelerator
    )
    seen.clear()

    def interrupted(network):
        if len(seen) + 1 == at // 4:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)  # the rest of a long evaluation
        return evaluate(network)

    began = time.monotonic()
    with pytest.raises(Interrupted, match=f"stopped after step {at} of tiny"):
        trained(replace(stage, evaluate=interrupted), config, accelerator)
    assert time.monotonic() - began < 30
    assert finished(stage.folder, 8) is None
    meta = load_checkpoint(stage.folder / "last.safetensors")[1]
    assert (meta["step"], meta["unscored"]) == (at, True)
    resumed = trained(replace(stage, evaluate=evaluate), config, accelerator, resume=True)
    assert torch.equal(resumed, straight)
    assert len(seen) == 2
    assert finished(stage.folder, 8) is not None
    assert read_meta(stage.folder / "best.safetensors")["miou"] == pytest.approx(0.52)


def test_a_signal_interrupts_waiting_for_a_batch(stage, accelerator, monkeypatch):
    straight = trained(replace(stage, folder=stage.folder / "straight"), SGD, accelerator)

    def stuck(*arguments, **options):
        for index, batch in enumerate(train_batches(*arguments, **options)):
            if index == 3:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(60)
            yield batch

    monkeypatch.setattr("distill.training.loop.train_batches", stuck)
    with pytest.raises(Interrupted, match="stopped after step 3 of tiny") as caught:
        trained(stage, SGD, accelerator)
    assert caught.value.exit_code == 143
    monkeypatch.undo()
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


def test_seconds_of_a_killed_process_count(stage, accelerator, monkeypatch):
    """Also those after its last checkpoint: the log has them."""
    config = replace(SGD, checkpoint_every=100, log_every=1)

    class Killed(BaseException):
        pass

    def die(training, step, batches):
        if step == 5:
            raise Killed
        time.sleep(0.1)
        return whole(training, step, batches)

    whole = Training.step
    with monkeypatch.context() as patch:
        patch.setattr(Training, "step", die)
        with pytest.raises(Killed):
            trained(stage, config, accelerator)
    assert not (stage.folder / "last.safetensors").exists()
    trained(stage, config, accelerator, resume=True)
    seconds = finished(stage.folder, config.steps)
    assert seconds is not None
    assert seconds > 0.4
