"""Cached teacher outputs: equal to online ones, only for the same views and teacher, and used only if complete."""

import errno
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from deploy.errors import UserError
from distill.config import AugmentConfig, DataConfig, DistillConfig, TrainConfig
from distill.data.loader import train_batches
from distill.data.train_view import TrainView
from distill.distillation.build import build_distillation_loss
from distill.distillation.teacher_cache import CHUNK_ROWS, Layout, TeacherCache, filling_alone
from distill.distillation.teachers import cached_teacher, identity_of, online_teacher
from distill.losses.distillation_loss import TeacherOutput, parse_distillation
from distill.tasks.registry import open_splits
from distill.training.loop import train
from distill.training.stage import Stage
from distill.training.step_module import Distillation, normalized
from tests.distill.tiny import CE, tiny_net

VIEWS, IMAGES = 4, 10
DISTILLATION = DistillConfig()
LAYOUT = Layout(VIEWS * IMAGES, {"logits": (2, 6, 6), "layer4": (8, 6, 6)}, "fp16")
# Not Adam: a bias before a batch norm has only rounding errors as gradient, which Adam would scale to full steps.
TRAIN = TrainConfig(steps=12, batch_size=4, optimizer="sgd", lr=0.05, checkpoint_every=3)


@pytest.fixture
def stage(tmp_path):
    return stage_of(tmp_path / "tiny")


def stage_of(folder, views=VIEWS, seed=0, crop=(24, 24)):
    splits = open_splits(DataConfig("synthetic", size=(32, 32), synthetic_counts=(IMAGES, 1, 1)))
    view = TrainView(
        splits.train,
        size=(32, 32),
        augment=AugmentConfig(crop=crop),
        mean=(-12.0, -19.0),
        optical=False,
        seed=seed,
        views=views,
    )
    mean, std = torch.tensor([-12.0, -19.0]).view(-1, 1, 1), torch.full((2, 1, 1), 5.0)
    return Stage("tiny", folder, view, mean, std, CE, seed=seed)


def cached(stage, accelerator, folder, numbers="fp16", network=None, features=("layer4",)):
    network = tiny_net(seed=9) if network is None else network
    teach = online_teacher([network], accelerator, features=features)
    return cached_teacher(teach, stage, folder, numbers, accelerator, identity_of([network], "mean"))


def batches_of(stage, steps=12):
    return list(train_batches(stage.view, 4, 0, 0, steps))


class TestViews:
    def test_epochs_repeat_after_that_many(self, stage):
        view = stage.view
        assert torch.equal(view[0, 3].image, view[VIEWS, 3].image)
        assert torch.equal(view[1, 3].label, view[5, 3].label)
        assert not torch.equal(view[0, 3].image, view[1, 3].image)

    def test_batches_know_their_keys(self, stage):
        for batch in batches_of(stage, 4):
            for key, image in zip(batch.keys, batch.image, strict=True):
                assert torch.equal(stage.view[key].image, image)


class TestSameAsOnline:
    @pytest.mark.parametrize(("numbers", "tolerance"), [("fp32", 1e-6), ("fp16", 1e-3), ("int8", 8e-3)])
    def test_outputs(self, stage, accelerator, tmp_path, numbers, tolerance):
        online = online_teacher([tiny_net(seed=9)], accelerator, features=("layer4",))
        recall = cached(stage, accelerator, tmp_path / "cache", numbers)
        for batch in batches_of(stage):
            image = normalized(batch, stage, channels_last=True)
            asked, recalled = online(batch, image), recall(batch, image)
            for a, b in (
                (asked.logits, recalled.logits),
                (asked.features["layer4"], recalled.features["layer4"]),
            ):
                limit = tolerance * a.abs().amax().item()
                torch.testing.assert_close(b, a, rtol=0, atol=limit)

    @pytest.mark.parametrize("loss", ["kl(t=2) + feature(layer4)", "cwd(t=4) + at(layer4)"])
    def test_trained_students(self, stage, accelerator, tmp_path, loss):
        """Twelve steps over every view give the same student, whether the teacher runs online or ran before."""

        def trained(name, teach):
            student = tiny_net()
            distillation_loss = build_distillation_loss(
                DISTILLATION, parse_distillation(loss), tiny_net(seed=9), student
            )
            torch.manual_seed(0)
            for adapter in distillation_loss.adapters.values():
                assert isinstance(adapter, nn.Conv2d)
                adapter.reset_parameters()
            there = replace(stage, folder=tmp_path / name)
            train(student, there, TRAIN, accelerator, distillation=Distillation(teach, distillation_loss))
            return torch.cat([v.flatten().double() for v in student.state_dict().values()])

        features = parse_distillation(loss).features
        online = trained("online", online_teacher([tiny_net(seed=9)], accelerator, features=features))
        exact = trained("fp32", cached(stage, accelerator, tmp_path / "a", "fp32", features=features))
        half = trained("fp16", cached(stage, accelerator, tmp_path / "b", "fp16", features=features))
        torch.testing.assert_close(exact, online, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(half, online, rtol=1e-2, atol=1e-2)

    def test_a_filled_cache_asks_the_teacher_once_only_for_its_shapes(self, stage, accelerator, tmp_path):
        asked = []
        network = tiny_net(seed=9)
        teach = online_teacher([network], accelerator)

        def counting(batch, image):
            asked.append(len(image))
            return teach(batch, image)

        for _ in range(2):
            cached_teacher(
                counting, stage, tmp_path / "c", "fp16", accelerator, identity_of([network], "mean")
            )
        assert asked == [1, CHUNK_ROWS, VIEWS * IMAGES - CHUNK_ROWS, 1]


class TestReliability:
    def test_an_interrupted_cache_is_completed(self, stage, accelerator, tmp_path):
        whole = cached(stage, accelerator, tmp_path / "whole")
        network = tiny_net(seed=9)
        teach = online_teacher([network], accelerator, features=("layer4",))
        asked = []

        class Killed(BaseException):
            pass

        def dying(batch, image):
            asked.append(len(image))
            if asked == [1, CHUNK_ROWS, VIEWS * IMAGES - CHUNK_ROWS]:
                raise Killed
            return teach(batch, image)

        options = stage, tmp_path / "c", "fp16", accelerator, identity_of([network], "mean")
        with pytest.raises(Killed):
            cached_teacher(dying, *options)
        recall = cached_teacher(dying, *options)
        assert asked[3:] == [1, VIEWS * IMAGES - CHUNK_ROWS]  # the first chunk was there
        for batch in batches_of(stage):
            assert torch.equal(recall(batch, batch.image).logits, whole(batch, batch.image).logits)

    def test_damage_is_found_and_repaired(self, stage, accelerator, tmp_path):
        first = cached(stage, accelerator, tmp_path / "c")
        batch = batches_of(stage, 1)[0]
        before = first(batch, batch.image).logits.clone()
        file = tmp_path / "c" / "logits.bin"
        with file.open("r+b") as f:
            f.write(b"\xff" * 64)
        again = cached(stage, accelerator, tmp_path / "c")
        assert torch.equal(again(batch, batch.image).logits, before)

    @pytest.mark.parametrize(
        ("change", "what"),
        [
            ({"network": 5}, "cache of another teacher"),
            ({"seed": 1}, "cache of another views"),
            ({"crop": (16, 24)}, "cache of another layout and views"),
            ({"numbers": "int8"}, "cache of another layout"),
            ({"features": ()}, "cache of another layout"),
        ],
    )
    def test_another_cache_is_refused(self, stage, accelerator, tmp_path, change, what):
        cached(stage, accelerator, tmp_path / "c")
        other = stage_of(tmp_path, **{k: v for k, v in change.items() if k in ("seed", "crop")})
        options = {k: v for k, v in change.items() if k in ("numbers", "features")}
        network = tiny_net(seed=change.get("network", 9))
        with pytest.raises(
            UserError, match=f"c: is a {what}; delete the folder, or give another --distill.cache"
        ):
            cached(other, accelerator, tmp_path / "c", network=network, **options)

    def test_a_full_disk_is_found_before_the_teacher_runs(self, tmp_path, monkeypatch):
        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("distill.distillation.teacher_cache.os.posix_fallocate", full)
        with pytest.raises(
            UserError, match=r"c: the teacher's outputs need .* GB, but the disk is full; free some"
        ):
            TeacherCache(tmp_path / "c", LAYOUT, {})
        assert not list((tmp_path / "c").iterdir())

    def test_a_truncated_file_and_a_broken_description_are_named(self, tmp_path):
        TeacherCache(tmp_path / "c", LAYOUT, {})
        with (tmp_path / "c" / "layer4.bin").open("r+b") as file:
            file.truncate(100)
        with pytest.raises(UserError, match=r"layer4\.bin: is missing or truncated; delete the folder"):
            TeacherCache(tmp_path / "c", LAYOUT, {})
        (tmp_path / "c" / "cache.json").write_text("{")
        with pytest.raises(UserError, match=r"cache\.json: cannot be read"):
            TeacherCache(tmp_path / "c", LAYOUT, {})

    def test_a_folder_with_other_files_is_left_alone(self, tmp_path):
        (tmp_path / "logits.bin").write_bytes(b"precious")
        with pytest.raises(UserError, match="holds other files"):
            TeacherCache(tmp_path, LAYOUT, {})
        assert (tmp_path / "logits.bin").read_bytes() == b"precious"


def test_int8_is_within_half_a_step(tmp_path):
    rng = np.random.default_rng(0)
    layout = replace(LAYOUT, rows=3, numbers="int8")
    scale = 10.0 ** rng.integers(-3, 3, (3, 2, 1, 1))
    logits = torch.tensor(rng.standard_normal((3, 2, 6, 6)) * scale).float()
    layer4 = torch.zeros(3, 8, 6, 6)
    cache = TeacherCache(tmp_path, layout, {})
    cache.write(range(3), TeacherOutput(logits, {"layer4": layer4}))
    read = cache.read([2, 0])
    step = logits.abs().amax((2, 3), keepdim=True) / 127
    assert ((read.logits - logits[[2, 0]]).abs() <= step[[2, 0]] * 0.501).all()
    assert not read.features["layer4"].any()


def test_chunks_that_another_process_has_emptied_are_noticed(stage, accelerator, tmp_path):
    recall = cached(stage, accelerator, tmp_path / "c")
    batch = batches_of(stage, 1)[0]
    recall(batch, batch.image)
    for name in ("logits.bin", "chunks.bin"):
        file = tmp_path / "c" / name
        with file.open("r+b") as f:
            f.write(bytes(file.stat().st_size))
    with pytest.raises(UserError, match=r"c: was changed or damaged while it was used; delete the folder"):
        recall(batch, batch.image)


FILL = """
import sys, time
from pathlib import Path
from distill.distillation.teacher_cache import filling_alone

with filling_alone(Path(sys.argv[1]), lambda: None):
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_runs_fill_one_after_the_other(tmp_path):
    with subprocess.Popen([sys.executable, "-c", FILL, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        waited = []

        def wait():
            waited.append(True)
            process.kill()

        with filling_alone(tmp_path, wait):
            assert waited
