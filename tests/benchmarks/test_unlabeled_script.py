"""benchmarks/unlabeled.py, pretraining.py and their table: what is compared, and what a second call does."""

import json

import numpy as np
import pytest
from scipy.stats import ttest_rel

from benchmarks import pretraining, unlabeled
from benchmarks.paired import paired_table, slug
from deploy.errors import UserError
from deploy.files.images import write_png
from tests.distill.tiny import RUN

FAST = [*RUN, "--data.synthetic-counts", "8", "2", "2", "--student.no-detail", "--teacher.no-detail"]
FAST += ["--int8.no-enabled"]


def test_gains_are_over_common_seeds():
    scores = {"plain": {0: 0.30, 1: 0.32, 2: 0.31}, "taught": {0: 0.33, 2: 0.36}, "none": {}}
    lines = paired_table(scores, "plain").splitlines()
    assert len(lines) == 2 + 2
    p = ttest_rel([0.33, 0.36], [0.30, 0.31]).pvalue
    assert lines[2].split()[1:] == ["30.00,", "32.00,", "31.00", "31.00", "±", "1.00"]
    assert lines[3].split()[1:] == ["33.00,", "36.00", "34.50", "±", "2.12", "+4.00", f"{p:.3f}"]


def test_every_method_is_trained_once(tmp_path, capsys):
    arguments = [*FAST, "--labels", "4", "--seeds", "0", "--folder", str(tmp_path)]
    assert unlabeled.main(arguments) == 0
    report = json.loads((tmp_path / "unlabeled.json").read_text())
    assert set(report["scores"]) == set(unlabeled.METHODS)
    scored = [name for name in unlabeled.METHODS if report["scores"][name]]
    assert scored == list(unlabeled.METHODS)[:4]
    logs = [tmp_path / "seed0" / slug(name) / "metrics.jsonl" for name in scored[1:]]
    rows = [json.loads(log.read_text().splitlines()[0]) for log in logs]
    assert ["kd" in row for row in rows] == [False, True, True]
    assert len({row["loss"] for row in rows}) == 3
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    capsys.readouterr()
    unlabeled.main(arguments)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == before
    assert "distilled, all images" in capsys.readouterr().out


def test_there_must_be_images_without_labels(tmp_path):
    with pytest.raises(UserError, match="--labels: says how many training images keep"):
        unlabeled.main([*FAST, "--folder", str(tmp_path)])


def test_a_student_starts_from_its_pretraining(tmp_path, monkeypatch):
    photos = tmp_path / "radar"
    for channel in ("VV", "VH"):
        write_png(
            photos / channel / "a.png", np.random.default_rng(0).integers(0, 255, (48, 48)).astype(np.uint8)
        )
    asked = []

    def pretrain(config):
        from distill.pretraining.networks import student_maps
        from distill.training.checkpoint import pack, save_checkpoint

        asked.append(config)
        config.out.mkdir(parents=True, exist_ok=True)
        backbone = student_maps(config.student, 2).backbone
        save_checkpoint(config.out / "b.safetensors", pack("model", backbone.state_dict()), {})
        return config.out / "b.safetensors"

    monkeypatch.setattr("distill.pretraining.pretrain.pretrain", pretrain)
    folder = tmp_path / "bench"
    options = ["--images", str(photos), "--pretrain-steps", "40", "--seeds", "0", "--folder", str(folder)]
    pretraining.main([*FAST, *options])
    (config,) = asked
    assert (config.train.steps, config.train.warmup, config.train.batch_size) == (40, 2, 2)
    assert (config.size, config.augment.crop, config.student) == (
        (48, 48),
        (48, 48),
        "pspnet/test_efficientnet",
    )
    report = json.loads((folder / "pretraining.json").read_text())
    assert [list(by_seed) for by_seed in report["scores"].values()] == [["0"], ["0"]]
    settings = [
        json.loads((folder / "seed0" / name / "config.json").read_text())
        for name in ("from-nothing", "pre-trained")
    ]
    assert [one["student.weights"] is None for one in settings] == [True, False]
    del settings[1]["student.weights"], settings[0]["student.weights"]
    assert settings[0] == settings[1]
    pretraining.main([*FAST, *options, "--pretrain-steps", "50"])
    assert asked[1].train.steps == 50  # the pre-training compares it with what it was begun with
    with pytest.raises(UserError, match=r"was started with other settings: student_train.lr"):
        pretraining.main([*FAST, *options, "--student-train.lr", "0.5"])
