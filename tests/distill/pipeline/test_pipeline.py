"""The whole pipeline, on the smallest networks."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import torch

import deploy
from deploy.bundle.bundle_files import read_manifest
from deploy.errors import GateFailed, UserError
from deploy.evaluation.receipt import Receipt
from distill import run as script
from distill.pipeline.pipeline import in_int8, run
from distill.pipeline.prepare import prepare
from distill.reporting.run_report import Form, Row
from distill.tasks.registry import PRESETS
from distill.training.checkpoint import load_checkpoint
from tests.conftest import ROOT
from tests.distill.tiny import RUN, check_against_data, run_script


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of the smoke preset with the smallest backbones."""
    config = script.parse([*RUN, "--out", str(tmp_path_factory.mktemp("pipeline") / "run")])
    run(config)
    return config


class TestPipeline:
    def test_writes_the_promised_files(self, finished):
        names = {path.name for path in finished.out.iterdir()}
        assert names >= {
            "config.json",
            "stats.json",
            "teacher",
            "baseline",
            "student",
            "teacher.bundle",
            "student.bundle",
            "data",
            "report.json",
            "report.md",
            "pictures",
        }
        for stage in ("teacher", "baseline", "student"):
            lines = [
                json.loads(line) for line in (finished.out / stage / "metrics.jsonl").read_text().splitlines()
            ]
            assert [line["step"] for line in lines if "loss" in line] == [1, 2]
            assert ("kd" in lines[0]) == (stage == "student")
            assert "aux" in lines[0]
            assert any((finished.out / stage / "tensorboard").iterdir())
        assert list((finished.out / "pictures").glob("*.png"))

    def test_int8_is_scored_on_the_images_of_the_others(self, finished):
        """Its receipt is of those that devices get, which may be fewer."""
        context = prepare(replace(finished, resume=True))
        row = Row("student", "some", 1, 1, 0.5, {}, 0.0, Form(finished.out / "student.bundle", "fp32"))
        receipts = json.loads((finished.out / "report.json").read_text())["receipts"]
        receipt = msgspec.convert(receipts["The student in INT8:"], Receipt)
        assert receipt.images == len(context.splits.test) == 2
        assert in_int8(context, row, receipt).score == (score := receipt.hops[-1].score)
        hop = msgspec.structs.replace(receipt.hops[-1], score=0.123)
        fewer = msgspec.structs.replace(receipt, images=1, hops=(*receipt.hops[:-1], hop))
        assert in_int8(context, row, fewer).score == pytest.approx(score)

    def test_receipt_has_the_hops_and_passes(self, finished):
        receipt = json.loads((finished.out / "student.bundle" / "receipt.json").read_text())
        assert [hop["name"] for hop in receipt["hops"]] == ["torch", "onnx", "runtime"]
        assert receipt["passed"]
        assert all(hop["agreement_first"] >= 0.999 for hop in receipt["hops"])

    def test_manifest_tells_the_data_statistics_and_score(self, finished):
        manifest = read_manifest(finished.out / "student.bundle")
        stats = json.loads((finished.out / "stats.json").read_text())
        assert list(manifest.input.mean) == pytest.approx(stats["mean"])
        assert manifest.input.channels == ("VV", "VH")
        assert manifest.metrics["dataset"] == "synthetic"
        assert manifest.provenance["teacher"] == "pspnet/test_efficientnet"
        report = json.loads((finished.out / "report.json").read_text())
        assert manifest.metrics["miou"] == pytest.approx(report["rows"][-1]["score"], abs=1e-3)

    def test_student_checkpoint_holds_no_teacher(self, finished):
        tensors, _ = load_checkpoint(finished.out / "student" / "last.safetensors")
        assert {name.split(".")[0] for name in tensors} == {"model"}

    def test_bundle_runs(self, finished):
        result = deploy.load(finished.out / "student.bundle")(np.full((60, 70, 2), -15, np.float32))
        assert result.labels.shape == (60, 70)

    def test_resuming_a_finished_run_changes_no_weights(self, finished):
        before = (finished.out / "student" / "best.safetensors").read_bytes()
        run(replace(finished, resume=True))
        assert (finished.out / "student" / "best.safetensors").read_bytes() == before

    def test_a_second_run_into_the_folder_is_refused(self, finished):
        with pytest.raises(UserError, match=r"already holds a run; add --resume"):
            run(finished)

    def test_resuming_with_other_settings_names_the_field(self, finished):
        changed = replace(finished, resume=True, student_train=replace(finished.student_train, lr=0.5))
        with pytest.raises(
            UserError, match=r"other settings: student_train\.lr \(student_train\.lr was 0\.001, is 0\.5\)"
        ):
            run(changed)

    def test_an_impossible_budget_fails_and_names_the_hop(self, finished, tmp_path):
        trained = finished.out / "teacher" / "best.safetensors"
        config = script.parse(
            [
                *RUN,
                f"--out={tmp_path / 'gate'}",
                f"--teacher.weights={trained}",
                "--teacher-train.steps=0",
                "--no-baseline",
            ]
        )
        object.__setattr__(config.export, "min_agreement", 1.5)  # the field itself refuses it
        with pytest.raises(
            GateFailed, match=r"torch → onnx: label agreement 100\.00 % is below the budget of 150"
        ):
            run(config)
        assert not (tmp_path / "gate" / "baseline").exists()
        assert not json.loads((tmp_path / "gate" / "student.bundle" / "receipt.json").read_text())["passed"]

    @pytest.mark.parametrize(
        ("mistake", "words"),
        [
            ("--student.arch=pspnet/typo", "no model 'typo'"),
            ("--student-train.batch-size=1", "student-train.batch-size 1: leaves one image"),
            ("--teacher-train.log-every=0", "teacher-train.log-every 0: must be at least 1"),
            (
                "--student-train.schedule=plateau",
                "student-train.schedule plateau: needs validation scores on the way; give --student-train.eval-every",
            ),
            (
                "--teacher-train.plateau-factor=1",
                r"teacher-train.plateau-factor 1\.0: must be above 0 and below 1",
            ),
            ("--loss.task=kl", "loss.task: no loss is called kl; there are ce, balanced_ce, focal"),
            (
                "--loss.class-weight-values=1 2 3",
                "loss.class-weight-values: 3 weights for 2 classes; give one a class",
            ),
            ("--loss.class-weight-values=1 0 1", "loss.class-weight-values 1 0 1: each must be above 0"),
            (
                "--loss.class-weight-values=1 2 3 --loss.class-weights=log",
                "loss.class-weights log: does not go with --loss.class-weight-values",
            ),
            ("--distill.loss=kl(t=0)", r"kl\(t=0\): t must be a number, above 0"),
            ("--distill.loss=feature(layer9)", "has no feature 'layer9'; it has layer3, layer4, head"),
            ("--distill.aux=feature(layer4)", r"distill.aux .*compares features; give losses on logits"),
            ("--distill.views=-1", "distill.views -1: must be at least 0"),
            ("--distill.weight=-1", r"distill.weight -1\.0: must be at least 0"),
            ("--distill.teachers=/nowhere.safetensors", "is not a checkpoint that describes its network"),
            (
                "--student-train.compile --student-train.checkpoint-activations",
                "student-train.compile: does not go with --student-train.checkpoint-activations",
            ),
            ("--augment.scale=2 1", "augment.scale"),
            ("--precision=fp16", "fp16 needs a GPU"),
            ("--data.size=0 9", "data.size 0: must be at least 8"),
            ("--int8.calibration-images=4", "int8.calibration-images 4: must be at least 8"),
            ("--int8.min-agreement=98", r"int8.min-agreement 98\.0: must be a fraction"),
            ("--data.synthetic-counts=7 2 2", "the training split has 7 images, too few to quantize by"),
        ],
    )
    def test_mistakes_are_found_before_the_folder_is_claimed(self, tmp_path, mistake, words):
        if "fp16" in mistake and torch.cuda.is_available():
            pytest.skip("float16 is right on a GPU")
        fields = mistake.replace("=", " ", 1).split()
        with pytest.raises(UserError, match=words):
            run(script.parse([*RUN, f"--out={tmp_path / 'x'}", *fields]))
        assert not (tmp_path / "x").exists()

    def test_a_loss_for_two_classes(self):
        config = script.parse([*RUN, "--loss.task", "ce + lovasz_hinge"])
        three, two = (
            SimpleNamespace(train=range(99), classes=range(n), task="segmentation", unlabeled=None)
            for n in (3, 2)
        )
        check_against_data(config, two)
        with pytest.raises(UserError, match=r"loss.task: lovasz_hinge is for two classes, the data has 3"):
            check_against_data(config, three)

    def test_teacher_weights_of_other_classes_are_refused(self, finished, tmp_path):
        from distill.training.checkpoint import save_checkpoint
        from student.zoo import build_network

        other = build_network("pspnet/test_efficientnet", 2, 19, head_channels=16)
        save_checkpoint(
            tmp_path / "t.safetensors", {f"model.{k}": v for k, v in other.state_dict().items()}, {}
        )
        config = script.parse(
            [*RUN, f"--out={tmp_path / 'x'}", f"--teacher.weights={tmp_path / 't.safetensors'}"]
        )
        with pytest.raises(UserError, match=r"t\.safetensors: is for 19 classes, the data has 2"):
            run(config)


def kill_in(stage, options, out):
    """Start or resume the run, and kill its process when it has written a checkpoint of that training."""
    process = subprocess.Popen(
        [sys.executable, "distill/run.py", *options, f"--out={out}", "--resume"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not (out / stage / "last.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    assert (out / stage / "last.safetensors").exists()


@pytest.mark.slow
def test_a_run_killed_in_each_training_resumes_to_the_same_weights(tmp_path):
    options = [*RUN, "--no-baseline", "--int8.no-enabled"]  # tests/chaos kills runs while they quantize, too
    for train in ("teacher-train", "student-train"):
        options += [f"--{train}.steps=6", f"--{train}.checkpoint-every=1"]
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert run_script(*options, f"--out={straight}", timeout=300).returncode == 0
    for stage in ("teacher", "student"):
        kill_in(stage, options, killed)
        assert not (killed / "student.bundle").exists()
    resumed = run_script(*options, f"--out={killed}", "--resume", timeout=300)
    assert resumed.returncode == 0, resumed.stderr
    for name in ("teacher", "student"):
        a, b = (load_checkpoint(folder / name / "best.safetensors")[0] for folder in (straight, killed))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_too_little_memory_on_the_gpu_is_one_line(tmp_path, monkeypatch):
    def full(config):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr("distill.pipeline.pipeline.check_run", full)
    with pytest.raises(UserError, match=r"GPU's memory does not suffice; .*--student-train\.accumulate 4"):
        run(replace(PRESETS["smoke"](), out=tmp_path / "run"))
