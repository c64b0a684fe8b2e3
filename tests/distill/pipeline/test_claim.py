"""A run takes its folder once nothing can refuse it any more: a corrected command can have the same one."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from deploy.errors import UserError
from deploy.files.images import write_png
from distill.data.stats import Stats
from distill.pipeline import claim as claiming
from distill.pipeline import pipeline, prepare
from distill.pipeline.claim import STATISTICS, claim
from distill.run import parse
from distill.run_folder import ORIGIN, SETTINGS
from distill.tasks.registry import open_splits
from distill.training.checkpoint import pack, save_checkpoint
from distill.training.checkpoint_metadata import checkpoint_metadata
from student.zoo import build_network
from tests.distill.tiny import RUN, prepared_data


@pytest.fixture(autouse=True)
def untrained(monkeypatch):
    """Runs end where they would train, and are not exported for a try before."""
    monkeypatch.setattr(prepare, "check_export", lambda *_: None)
    monkeypatch.setattr(pipeline, "run_pipeline", lambda context: context.config.out)


@pytest.fixture
def start(tmp_path):
    """Start a run in the same folder with further fields."""
    return lambda *fields: pipeline.run(parse([*RUN, f"--out={tmp_path / 'run'}", *fields]))


@pytest.fixture
def teacher(tmp_path):
    """Write a further teacher; far off, the normalization of its images is not that of the run."""

    def write(far):
        config = parse(RUN)
        data = prepared_data(open_splits(config.data, config.seed))
        if far:
            data = replace(data, stats=Stats((5.0, 5.0), (9.0, 9.0), data.stats.class_pixels, 8))
        network = build_network(config.teacher.arch, 2, 2, head_channels=16)
        meta = checkpoint_metadata(replace(config.teacher, head_channels=16), True, data)
        save_checkpoint(tmp_path / "teacher.safetensors", pack("model", network.state_dict()), meta)
        return f"--distill.teachers={tmp_path / 'teacher.safetensors'}"

    return write


def content(folder):
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_teacher_that_does_not_fit_the_statistics_leaves_the_folder_free(start, teacher, tmp_path):
    with pytest.raises(UserError, match=r"teacher\.safetensors: was trained on images normalized"):
        start(teacher(far=True))
    assert not (tmp_path / "run").exists()
    out = start("--seed=1")
    assert json.loads((out / SETTINGS).read_text())["seed"] == 1
    assert {path.name for path in out.iterdir()} == {SETTINGS, ORIGIN, STATISTICS}


def test_a_class_without_pixels_leaves_the_folder_free(start, tmp_path):
    root = tmp_path / "data"
    for split in ("train", "val"):
        for number in range(4):
            label = (np.indices((48, 48)).sum(0) // 8 % 2).astype(np.uint8)
            write_png(root / split / "images" / f"{number}.png", np.full((48, 48, 3), 40 * number, np.uint8))
            write_png(root / split / "masks" / f"{number}.png", label)
    (root / "classes.json").write_text('["land", "water", "ice"]')
    fields = ("--data.name=folder", f"--data.root={root}", "--no-teacher", "--int8.no-enabled")
    with pytest.raises(UserError, match="ice"):
        start(*fields)
    assert not (tmp_path / "run").exists()
    (root / "classes.json").write_text('["land", "water"]')
    assert (start(*fields) / SETTINGS).exists()


def test_memory_that_does_not_suffice_for_the_timing_leaves_the_folder_free(start, monkeypatch, tmp_path):
    def exhausted(_):
        raise torch.OutOfMemoryError

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "fit_to_time", exhausted)
        with pytest.raises(UserError, match=r"or batch$"):
            start()
    assert not (tmp_path / "run").exists()
    smaller = ("--student-train.accumulate=2", "--student-train.batch-size=4")
    out = start(*smaller)
    assert json.loads((out / SETTINGS).read_text())["student_train.accumulate"] == 2
    monkeypatch.setattr(pipeline, "run_pipeline", exhausted)
    with pytest.raises(UserError, match=r"with another --out$"):
        start(*smaller, "--resume")


def test_a_tracker_that_does_not_start_leaves_the_folder_free(start, monkeypatch, tmp_path):
    def fail(*_):
        raise UserError("--tracker wandb: no key; fix it, or leave the option out")

    with monkeypatch.context() as patch:
        patch.setattr(claiming, "start_tracker", fail)
        with pytest.raises(UserError, match="no key"):
            start("--max-minutes=100")
    assert not (tmp_path / "run").exists()
    assert (start() / SETTINGS).exists()


def test_a_refusal_while_resuming_leaves_the_run_as_it_was(start, teacher):
    field = teacher(far=False)
    out = start(field)
    (out / "teacher").mkdir()
    (out / "teacher" / "last.safetensors").write_bytes(b"state")
    before = content(out)
    teacher(far=True)
    with pytest.raises(UserError, match="was trained on images normalized"):
        start(field, "--resume")
    assert content(out) == before
    with pytest.raises(UserError, match="already holds a run"):
        start(field)
    with pytest.raises(UserError, match=r"seed was 0, is 1"):
        start(field, "--seed=1", "--resume")
    assert content(out) == before
    teacher(far=False)
    start(field, "--resume")
    assert content(out) == before


def test_statistics_that_no_run_has_claimed_are_not_used(start):
    out = start()
    right = content(out)
    (out / SETTINGS).unlink()
    (out / ORIGIN).write_text("{")
    (out / STATISTICS).write_text("{")
    start("--resume")
    assert content(out) == right


def test_a_folder_that_was_claimed_meanwhile_is_refused(tmp_path):
    first, second = (
        prepare.check_run(parse([*RUN, f"--out={tmp_path / 'run'}", f"--seed={seed}"])) for seed in (0, 1)
    )
    claim(first)
    before = content(tmp_path / "run")
    with pytest.raises(UserError, match="already holds a run"):
        claim(second)
    assert content(tmp_path / "run") == before
