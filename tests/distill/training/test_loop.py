"""The training loop: what it computes, and that it resumes exactly, stops cleanly and never learns from nothing."""

import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from deploy.errors import UserError
from distill.config import AugmentConfig, DataConfig, LossConfig, TrainConfig
from distill.data.registry import open_splits
from distill.data.sample import Sample
from distill.data.train_view import TrainView
from distill.training.checkpoint import load_checkpoint, save_checkpoint
from distill.training.loop import Interrupted, Stage, loss_terms, train
from distill.training.optim import Plateau, build_optimizer, learning_rate, set_learning_rate
from distill.training.step_module import TrainStepModule
from tests.distill.tiny import distillation, tiny_net

SGD = TrainConfig(
    steps=8, batch_size=4, optimizer="sgd", schedule="poly", lr=0.05, checkpoint_every=3, log_every=2
)
RMSPROP = replace(SGD, optimizer="rmsprop", lr=0.001)
ADAMW = replace(SGD, optimizer="adamw", schedule="cosine", lr=0.01)


@pytest.fixture(scope="module")
def accelerator():
    return Accelerator(cpu=True)


@pytest.fixture
def stage(tmp_path):
    splits = open_splits(DataConfig("synthetic", size=(32, 32), synthetic_counts=(10, 1, 1)))
    view = TrainView(
        splits.train,
        size=(32, 32),
        resize="stretch",
        augment=AugmentConfig(crop=(24, 24)),
        mean=(-12.0, -19.0),
        optical=False,
    )
    mean, std = torch.tensor([-12.0, -19.0]).view(-1, 1, 1), torch.full((2, 1, 1), 5.0)
    return Stage("tiny", tmp_path / "tiny", view, mean, std, LossConfig(), seed=0)


def weights(network):
    return torch.cat([value.flatten().double() for value in network.state_dict().values()])


def trained(stage, config, accelerator, teacher=None, loss="kl(t=2)", distil=None, **options):
    network = tiny_net()
    if teacher is not None:
        options["distillation"] = distillation(teacher, network, accelerator, loss, **(distil or {}))
    train(network, stage, config, accelerator, **options)
    return weights(network)


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
    # A kill leaves whatever was last renamed into place: run on a copy of the stage that dies right after a checkpoint.
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


def test_distillation_reaches_the_student_only(stage, accelerator):
    teacher = tiny_net(seed=9)
    before = weights(teacher)
    plain = trained(stage, SGD, accelerator)
    distilled = trained(replace(stage, folder=stage.folder / "kd"), SGD, accelerator, teacher=teacher)
    assert not torch.equal(plain, distilled)
    assert torch.equal(weights(teacher), before)
    tensors, _ = load_checkpoint(stage.folder / "kd" / "last.safetensors")
    assert {name.split(".")[1] for name in tensors} <= {"backbone", "classifier", "aux_head", "dropout"}
    assert len(tensors) == len(tiny_net().state_dict())


def test_the_total_is_the_weighted_sum_of_its_terms(stage, accelerator):
    stage = replace(stage, loss=LossConfig(aux=0.3))
    network = tiny_net().train()
    lesson = distillation(tiny_net(seed=9), network, accelerator, "kl(t=3)", weight=0.7, schedule="cosine")
    model = TrainStepModule(network, lesson.distillation_loss, stage.loss)
    terms = loss_terms(model, stage, SGD, accelerator, lesson, 2, _batch(stage))
    weight = 0.7 * 0.5 * (1 + np.cos(np.pi * 2 / 8))
    torch.testing.assert_close(terms["loss"], terms["task"] + weight * terms["kd"] + 0.3 * terms["aux"])
    assert all(term > 0 for term in terms.values())


@pytest.mark.parametrize("loss", ["feature(layer4) + cirkd(layer4)", "kl(t=2) + at(layer4)"])
def test_what_distillation_trains_is_resumed_and_left_out_of_the_student(stage, tmp_path, accelerator, loss):
    """Adapters and memories go on from the checkpoint bit for bit; the best weights hold neither, nor the teacher."""
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


@pytest.mark.parametrize("task", ["ce", "focal + dice + gdice + tversky + lovasz + 0.1*boundary"])
def test_two_micro_batches_give_the_gradient_of_one_batch(stage, accelerator, task):
    """Without batch statistics and dropout accumulation changes nothing, however many pixels of a part are valid."""
    stage = replace(stage, loss=LossConfig(task=task))
    stage.view.augment = None
    for index in range(10):
        valid = torch.ones(32, 32, dtype=torch.bool)
        valid[: 3 * index] = False
        label = torch.where(valid, torch.randint(0, 2, (32, 32)), 255)
        stage.view.cached.samples[index] = Sample(torch.randn(2, 32, 32), label, valid, str(index))

    def one(accumulate):
        network = tiny_net()
        network.dropout.p = 0.0
        network.backbone[1] = torch.nn.Identity()
        config = replace(SGD, steps=2, accumulate=accumulate, weight_decay=0.0)
        train(network, replace(stage, folder=stage.folder / str(accumulate)), config, accelerator)
        return weights(network)

    torch.testing.assert_close(one(2), one(1), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_all_void_batch_changes_nothing(stage, accelerator, accumulate):
    void = Sample(torch.zeros(2, 32, 32), torch.full((32, 32), 255), torch.zeros(32, 32).bool(), "void")
    stage.view.augment = None
    stage.view.cached.samples = dict.fromkeys(range(10), void)
    untouched = weights(tiny_net())
    assert torch.equal(
        trained(stage, replace(SGD, weight_decay=0.1, accumulate=accumulate), accelerator), untouched
    )


def test_a_non_finite_loss_names_the_images(stage, accelerator):
    bad = Sample(
        torch.full((2, 32, 32), torch.inf), torch.ones(32, 32).long(), torch.ones(32, 32).bool(), "scene-7"
    )
    stage.view.augment = None
    stage.view.cached.samples = dict.fromkeys(range(10), bad)
    with pytest.raises(UserError, match=r"tiny: the loss is nan on the batch scene-7"):
        trained(stage, SGD, accelerator)


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


def test_best_checkpoint_is_the_best_evaluation(stage, accelerator):
    scores = iter([0.3, 0.9, 0.5, 0.1])
    seen = []

    def evaluate(network):
        seen.append(weights(network).clone())
        return {"miou": next(scores)}

    config = replace(SGD, eval_every=2)
    network = tiny_net()
    train(network, replace(stage, evaluate=evaluate), config, accelerator)
    assert load_checkpoint(stage.folder / "best.safetensors")[1] == {"step": 4, "miou": 0.9}
    assert torch.equal(weights(network), seen[1])


def test_averaged_weights_are_the_running_mean(stage, accelerator, monkeypatch):
    seen = []

    def remember(path, tensors, meta):
        save_checkpoint(path, tensors, meta)
        if path.name == "last.safetensors":
            seen.append(tensors["model.classifier.weight"].clone())

    monkeypatch.setattr("distill.training.train_state.save_checkpoint", remember)
    network = tiny_net()
    train(network, stage, replace(SGD, steps=3, ema=0.75, checkpoint_every=1), accelerator)
    average = seen[0]  # the first update copies
    for weight in seen[1:]:
        average = 0.75 * average + 0.25 * weight
    torch.testing.assert_close(network.classifier.weight, average)
    assert not torch.allclose(average, seen[-1])


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


def test_a_plateau_is_resumed_where_it_was(stage, tmp_path, accelerator):
    """Killed between two evaluations that are no better, the training goes on counting, and its rate falls."""
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


def test_a_stage_does_not_depend_on_those_before_it(stage, tmp_path, accelerator):
    """An odd number of micro-batches before must not shift accumulation after."""
    config = replace(SGD, accumulate=2)
    alone = trained(stage, config, accelerator)
    trained(replace(stage, folder=tmp_path / "before"), replace(SGD, steps=3), accelerator)
    assert torch.equal(trained(replace(stage, folder=tmp_path / "after"), config, accelerator), alone)


class TestSchedule:
    def test_poly_is_the_papers(self):
        config = TrainConfig(steps=100, schedule="poly", lr=0.01)
        for step in (0, 50, 99):
            assert learning_rate(config, step) == pytest.approx(0.01 * (1 - step / 100) ** 0.9)

    def test_cosine_equals_torch(self):
        config = TrainConfig(steps=50, schedule="cosine", lr=0.1)
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50)
        for step in range(50):
            assert learning_rate(config, step) == pytest.approx(schedule.get_last_lr()[0], abs=1e-12)
            optimizer.step()
            schedule.step()

    def test_warm_up_is_linear_and_reaches_the_rate(self):
        config = TrainConfig(steps=100, lr=1.0, warmup=4)
        assert [learning_rate(config, step) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]

    @pytest.mark.parametrize(("factor", "patience"), [(0.5, 3), (0.1, 0), (0.3, 1)])
    def test_plateau_decides_as_torch(self, factor, patience):
        config = TrainConfig(steps=1, schedule="plateau", plateau_factor=factor, plateau_patience=patience)
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        options = {"mode": "max", "factor": factor, "patience": patience, "threshold": 0.0, "eps": 0.0}
        torchs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **options)
        ours, shares = Plateau(), []
        for score in np.random.default_rng(0).choice([0.1, 0.2, 0.3, 0.4, 0.5], 40).cumsum() % 1.0:
            ours.observe(score, config)
            torchs.step(score)
            shares.append(ours.share)
            assert ours.share == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        assert len(set(shares)) > 2

    def test_a_plateau_keeps_the_rate_of_the_warm_up(self):
        config = TrainConfig(steps=100, schedule="plateau", lr=1.0, warmup=4)
        assert [learning_rate(config, step) for step in (0, 1, 2, 3, 4, 99)] == [0.25, 0.5, 0.75, 1, 1, 1]

    def test_heads_learn_faster_and_norms_do_not_decay(self):
        config = TrainConfig(steps=1, optimizer="sgd", lr=0.01, head_lr_factor=10, weight_decay=0.5)
        network = tiny_net()
        optimizer = build_optimizer(TrainStepModule(network, None, LossConfig()), config)
        set_learning_rate(optimizer, 0.01)
        by_name = {
            id(p): (group["lr"], group["weight_decay"])
            for group in optimizer.param_groups
            for p in group["params"]
        }
        assert by_name[id(network.backbone[0].weight)] == (0.01, 0.5)
        assert by_name[id(network.backbone[1].weight)] == (0.01, 0.0)
        assert by_name[id(network.classifier.weight)] == (pytest.approx(0.1), 0.5)
        assert by_name[id(network.classifier.bias)] == (pytest.approx(0.1), 0.0)


class TestCheckpoint:
    def test_damage_is_detected(self, tmp_path):
        path = tmp_path / "last.safetensors"
        save_checkpoint(path, {"model.w": torch.arange(6.0)}, {"step": 3})
        whole = path.read_bytes()
        path.write_bytes(whole[:-4])
        with pytest.raises(UserError, match=r"last\.safetensors: damaged checkpoint"):
            load_checkpoint(path)
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(UserError, match=r"last\.safetensors: checksum mismatch"):
            load_checkpoint(path)
        path.write_bytes(whole)
        tensors, meta = load_checkpoint(path)
        assert torch.equal(tensors["model.w"], torch.arange(6.0))
        assert meta == {"step": 3}

    def test_a_full_disk_keeps_the_old_file(self, tmp_path, monkeypatch):
        path = tmp_path / "last.safetensors"
        save_checkpoint(path, {"w": torch.zeros(1)}, {"step": 1})

        def full(_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("deploy.files.atomic.os.fsync", full)
        with pytest.raises(UserError, match=r"last\.safetensors: the disk is full"):
            save_checkpoint(path, {"w": torch.ones(1)}, {"step": 2})
        assert load_checkpoint(path)[1] == {"step": 1}
        assert [p.name for p in tmp_path.iterdir()] == ["last.safetensors"]


def _batch(stage):
    from distill.data.loader import train_batches

    return next(iter(train_batches(stage.view, 4, 0, 0, 1)))
