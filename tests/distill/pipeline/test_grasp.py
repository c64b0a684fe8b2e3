"""The whole pipeline for grasps, on the smallest networks and scenes."""

import json

import numpy as np
import pytest

import deploy
from deploy import cli
from deploy.build_engine import main as build_engine
from deploy.bundle.bundle_files import read_manifest
from deploy.errors import UserError
from deploy.files.images import list_images, read_image
from deploy.tasks.grasp.model import GraspModel
from distill import run as script
from distill.evaluate import command as evaluate
from distill.pipeline.pipeline import run
from distill.pipeline.prepare import prepare
from distill.pipeline.stages import train_all
from distill.tasks.registry import open_splits
from tests.distill.tiny import check_against_data

RUN = (
    "quick-grasp",
    "--data.size=64",
    "64",
    "--augment.crop=64",
    "64",
    "--data.synthetic-counts=10",
    "3",
    "4",
    "--teacher.arch=pspnet/test_efficientnet",
    "--student.arch=pspnet/test_efficientnet",
    "--teacher.head-channels=16",
    "--student.head-channels=16",
    "--teacher-train.steps=2",
    "--student-train.steps=2",
    "--precision=fp32",
    "--int8.max-drop=1",
    "--int8.min-agreement=0",
)


def parsed(*more):
    return script.parse([*(part for field in RUN for part in field.split("=")), *more])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    config = parsed("--out", str(tmp_path_factory.mktemp("grasps") / "run"))
    run(config)
    return config


def test_report_and_bundle(finished):
    report = json.loads((finished.out / "report.json").read_text())
    assert [row["name"] for row in report["rows"]] == ["teacher", "baseline", "student", "student int8"]
    assert all(0 <= row["score"] <= 1 for row in report["rows"])
    text = (finished.out / "report.md").read_text()
    assert "success@1 %" in text
    assert "mIoU" not in text
    manifest = read_manifest(finished.out / "student.bundle")
    assert manifest.task == "grasp"
    assert manifest.input.depth == 0
    assert "success" in manifest.metrics
    assert "int8 success" in manifest.metrics
    assert len(list((finished.out / "pictures").iterdir())) == 4


def test_page_and_evaluation_without_classes(finished, tmp_path):
    page = (finished.out / "report.html").read_text(encoding="utf-8")
    assert "success@1" in page
    assert page.count("<figure>") >= 3
    assert 'class="viewer"' not in page  # grasps are drawn, there are no class ids
    assert evaluate.main([str(finished.out), str(finished.out), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "per_image.csv").read_text().startswith("image,success,")
    assert not (tmp_path / "out" / "confusion.csv").exists()
    assert list((tmp_path / "out" / "worst").iterdir())


def test_runs_on_a_device(finished):
    model = deploy.load(finished.out / "student.bundle")
    assert isinstance(model, GraspModel)
    image = read_image(list_images(finished.out / "samples")[0])
    result = model(image, count=3)
    assert result.grasps.shape[1] == 5
    assert len(result.grasps) <= 3
    assert result.labels.shape == image.shape[:2]


def test_commands(finished, tmp_path, capsys):
    bundle = str(finished.out / "student.bundle")
    assert cli.main(["predict", bundle, str(finished.out / "samples"), "--out", str(tmp_path)]) == 0
    assert "4 of 4 images predicted" in capsys.readouterr().out
    assert len(list(tmp_path.glob("*_grasps.csv"))) == len(list(tmp_path.glob("*_overlay.png"))) == 4
    assert cli.main(["info", bundle]) == 0
    assert "grasp" in capsys.readouterr().out
    assert cli.main(["verify", bundle]) == 0


def test_build_engine_gates_on_success(finished, capsys):
    bundle = str(finished.out / "student.bundle")
    assert build_engine([bundle, "--backend", "onnxruntime", "--max-drop", "1", "--min-agreement", "0"]) == 0
    assert "success@1 %" in capsys.readouterr().out


def test_latency_counts_decoding(finished, capsys):
    from benchmarks.latency import main as latency

    report = finished.out / "latency.json"
    latency([str(finished.out / "student.bundle"), "--runs", "3", "--warmup", "1", "--json", str(report)])
    assert "float32" in capsys.readouterr().out
    assert '"postprocess"' in report.read_text()


def test_an_interrupted_run_goes_on(finished):
    again = script.parse(
        [*(part for field in RUN for part in field.split("=")), "--out", str(finished.out), "--resume"]
    )
    before = (finished.out / "student" / "best.safetensors").stat().st_mtime_ns
    train_all(prepare(again))  # test_pipeline.py resumes what follows, too, which no task changes
    assert (finished.out / "student" / "best.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (("--distill.loss", "kl"), "kl is for classes, the data has grasps"),
        (("--loss.task", "ce"), "no loss is called ce"),
        (("--loss.task", "mse"), "^--distill.loss grasp_kl: takes the quality as a logit"),
        (("--distill.aux", "maps"), "^--distill.aux maps: takes the quality as a number"),
        (("--distill.trust", "label"), "are for classes"),
        (("--distill.teachers", "another.safetensors"), "give one teacher"),
        (("--loss.class-weights", "log"), "are for classes"),
        (("--augment.balance", "0.5"), "are for classes"),
        (("--augment.max-no-data", "0.5"), "are for classes"),
        (
            ("--data.resize", "tile"),
            "--data.resize tile: is for segmentation, the data has grasps; use stretch",
        ),
    ],
)
def test_what_is_for_classes_alone_is_refused(fields, message):
    config = parsed(*fields)
    with pytest.raises(UserError, match=message):
        check_against_data(config, open_splits(config.data))


def test_colors_and_depth(tmp_path):
    config = parsed("--out", str(tmp_path / "run"), "--data.channels", "rgbd", "--no-teacher")
    run(config)
    manifest = read_manifest(tmp_path / "run" / "student.bundle")
    assert manifest.input.channels == ("R", "G", "B", "depth")
    assert manifest.input.depth == 3
    model = deploy.load(tmp_path / "run" / "student.bundle")
    image = read_image(list_images(tmp_path / "run" / "samples")[0])
    assert image.shape[2] == 4
    assert np.isfinite(model(image).maps).all()
