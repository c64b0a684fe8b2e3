"""`edgedistill compare`, from bundles to tables and pictures."""

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

import distill.compare.command
from deploy.bundle.bundle_files import set_decision, write_bundle
from deploy.errors import UserError
from deploy.evaluation.labeled_data import read_labeled, write_labeled
from deploy.evaluation.segmentation_metrics import SegmentationMetrics
from deploy.files.images import read_image, write_png
from deploy.loading import load
from distill import cli
from distill.reporting import figures
from tests.deploy.labeled_bundle import make_labeled_bundle
from tests.deploy.tiny import make_manifest
from tests.deploy.two_classes import IMAGES, make_two_class_bundle, scene

TABLES = {"per_image.csv", "thresholds.csv", "calibration.csv", "comparison.csv", "summary.csv"}
PLOTS = {"histograms.png", "thresholds.png", "pr_roc.png", "calibration.png"}


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two runs with the same data, of which the second has the better threshold."""
    folders = [tmp_path / name for name in ("plain", "tuned")]
    for folder in folders:
        make_two_class_bundle(folder / "student.bundle")
    set_decision(folders[1] / "student.bundle", 0.7, None)
    return folders


def compare(*arguments: object, out: Path) -> int:
    return cli.main(["compare", *map(str, arguments), "--out", str(out), "--backend", "onnxruntime"])


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def scores_of(bundle: Path, split: str = "test"):
    model, metrics = load(bundle, "onnxruntime"), SegmentationMetrics(2)
    for _, image, label, valid in read_labeled(bundle.parent / "data" / split, 2):
        metrics.update(model(image).labels, label, valid)
    return metrics.scores()


@pytest.fixture
def no_plots(monkeypatch):
    """Leave out the plots, which take two seconds a comparison."""
    monkeypatch.setattr(distill.compare.command, "write_plots", lambda *_: [])


def test_all_files_are_there_and_the_table_is_printed(runs, tmp_path, capsys):
    out = tmp_path / "out"
    assert compare(*runs, out=out) == 0
    assert {path.name for path in out.iterdir()} == TABLES | PLOTS | {"errors"}
    assert len(list((out / "errors").iterdir())) == IMAGES
    for name in PLOTS:
        assert read_image(out / name).std() > 0
    printed = capsys.readouterr().out
    assert "F1 land %" in printed
    assert "plain – tuned" in printed


@pytest.mark.parametrize("label", [0, 1])
def test_data_of_one_class_are_drawn(runs, tmp_path, label):
    replace_test(runs[0], np.full((32, 48), label, np.uint8), np.ones((32, 48), bool))
    compare(runs[0], out=tmp_path / "out")
    [row] = rows_of(tmp_path / "out" / "summary.csv")
    assert row["AUC"] == ""
    assert (row["AP"] == "") == (label == 0)


def replace_test(run: Path, label, valid):
    shutil.rmtree(run / "data")
    write_labeled(run / "data" / "test", [("a", scene(0)[0], label, valid)])


@pytest.mark.usefixtures("no_plots")
class TestResults:
    def test_summary_is_what_the_metrics_say(self, runs, tmp_path):
        compare(*runs, out=tmp_path / "out")
        for row, run in zip(rows_of(tmp_path / "out" / "summary.csv"), runs, strict=True):
            scores = scores_of(run / "student.bundle")
            assert row["model"] == run.name
            assert float(row["mIoU"]) == pytest.approx(scores.miou, abs=1e-6)
            assert float(row["F1 land"]) == pytest.approx(scores.f1[1], abs=1e-6)
            assert float(row["pixel accuracy"]) == pytest.approx(scores.pixel_accuracy, abs=1e-6)
            assert float(row["best F1"]) >= float(row["F1 land"])

    def test_rows_of_the_tables(self, runs, tmp_path):
        out = tmp_path / "out"
        compare(*runs, out=out)
        images = rows_of(out / "per_image.csv")
        assert len(images) == 2 * IMAGES
        assert all(
            float(row["share water"]) + float(row["share land"]) == pytest.approx(1, abs=1e-5)
            for row in images
        )
        assert len(rows_of(out / "thresholds.csv")) == 2 * 1001
        assert len(rows_of(out / "calibration.csv")) == 2 * 2 * 15
        [pair] = rows_of(out / "comparison.csv")
        first, second = ([float(r["mIoU"]) for r in images if r["model"] == run.name] for run in runs)
        assert int(pair["losses"]) == sum(a < b for a, b in zip(first, second, strict=True)) == IMAGES
        difference = np.mean(first) - np.mean(second)
        assert float(pair["image mIoU difference"]) == pytest.approx(difference, abs=2e-6)
        assert float(pair["low"]) <= difference <= float(pair["high"]) < 0

    def test_the_labels_at_the_threshold_are_a_row_of_the_sweep(self, runs, tmp_path):
        compare(runs[1], out=tmp_path / "out")
        row = rows_of(tmp_path / "out" / "thresholds.csv")[700]
        [summary] = rows_of(tmp_path / "out" / "summary.csv")
        assert row["threshold"] == "0.700000"
        assert row["F1"] == summary["F1 land"]

    def test_a_second_comparison_gives_the_same(self, runs, tmp_path):
        for name in ("one", "two"):
            compare(*runs, out=tmp_path / name)
        for name in TABLES:
            assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()

    def test_worst_images_come_first_and_replace_older_ones(self, runs, tmp_path):
        out = tmp_path / "out"
        compare(*runs, out=out)
        compare(*runs, "--worst", 2, out=out)
        images = rows_of(out / "per_image.csv")
        mean = {row["image"]: 0.0 for row in images}
        for row in images:
            mean[row["image"]] += float(row["mIoU"])
        worst = sorted(mean, key=mean.__getitem__)[:2]
        assert sorted(path.name for path in (out / "errors").iterdir()) == [
            f"{rank:03d}-{name}.png" for rank, name in enumerate(worst, 1)
        ]

    def test_another_class_and_another_split(self, runs, tmp_path):
        compare(runs[0], "--class", "water", "--split", "val", out=tmp_path / "out")
        [row] = rows_of(tmp_path / "out" / "summary.csv")
        scores = scores_of(runs[0] / "student.bundle", "val")
        assert float(row["F1 water"]) == pytest.approx(scores.f1[0], abs=1e-6)

    def test_three_classes_with_one_model(self, tmp_path, capsys):
        bundle = make_labeled_bundle(tmp_path / "run" / "student.bundle")
        assert compare(bundle, "--class", "blue", out=tmp_path / "out") == 0
        [row] = rows_of(tmp_path / "out" / "summary.csv")
        assert (row["model"], float(row["mIoU"])) == ("student", 1.0)
        assert rows_of(tmp_path / "out" / "comparison.csv") == []
        assert "wins" not in capsys.readouterr().out

    def test_without_val_there_is_no_temperature(self, runs, tmp_path):
        shutil.rmtree(runs[0] / "data" / "val")
        compare(runs[0], out=tmp_path / "out")
        [row] = rows_of(tmp_path / "out" / "summary.csv")
        assert (row["temperature"], row["ECE with temperature"]) == ("", "")

    def test_an_image_without_valid_pixels_has_no_scores(self, runs, tmp_path):
        masks = sorted((runs[0] / "data" / "test" / "masks").iterdir())
        write_png(masks[0], np.full((32, 48), 255, np.uint8))
        compare(runs[0], "--worst", 9, out=tmp_path / "out")
        first, *others = rows_of(tmp_path / "out" / "per_image.csv")
        assert (first["mIoU"], float(first["valid share"])) == ("", 0)
        assert all(row["mIoU"] for row in others)
        assert len(list((tmp_path / "out" / "errors").iterdir())) == IMAGES - 1


@pytest.mark.usefixtures("no_plots")
class TestNames:
    def test_runs_and_bundles_of_one_name_are_told_apart(self, runs, tmp_path):
        bundles = [run / "student.bundle" for run in runs]
        compare(*bundles, out=tmp_path / "out")
        names = [row["model"] for row in rows_of(tmp_path / "out" / "summary.csv")]
        assert names == ["plain/student", "tuned/student"]

    def test_one_model_twice_is_refused(self, runs, tmp_path):
        with pytest.raises(UserError, match="is given twice"):
            compare(runs[0], runs[0] / "student.bundle", out=tmp_path / "out")


@pytest.mark.usefixtures("no_plots")
class TestRefusals:
    def test_other_classes(self, runs, tmp_path):
        other = make_labeled_bundle(tmp_path / "rgb" / "student.bundle")
        with pytest.raises(UserError, match="has the classes red, green, blue, plain has water, land"):
            compare(runs[0], other, out=tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_grasps(self, runs, tmp_path):
        write_bundle(
            runs[0] / "student.bundle", msgspec.structs.replace(make_manifest("sar"), task="grasp"), {}
        )
        with pytest.raises(UserError, match="its task is grasp; compare is for segmentation") as caught:
            compare(runs[0], out=tmp_path / "out")
        assert caught.value.exit_code == 2

    def test_other_images(self, runs, tmp_path):
        image = next((runs[1] / "data" / "test" / "images").iterdir())
        np.save(image, scene(99)[0])
        with pytest.raises(UserError, match=f"different labeled images in test, such as images/{image.name}"):
            compare(*runs, out=tmp_path / "out")
        assert compare(*runs, "--data", runs[0] / "data", out=tmp_path / "out") == 0

    def test_missing_data_are_named(self, runs, tmp_path):
        with pytest.raises(UserError, match="nowhere/test/images: no such folder"):
            compare(*runs, "--data", tmp_path / "nowhere", out=tmp_path / "out")
        with pytest.raises(UserError, match="data/other/images: no such folder"):
            compare(*runs, "--split", "other", out=tmp_path / "out")

    def test_what_is_no_model(self, tmp_path):
        with pytest.raises(UserError, match=r"holds neither manifest\.json nor student\.bundle"):
            compare(tmp_path, out=tmp_path / "out")
        with pytest.raises(UserError, match="nothing: no such folder"):
            compare(tmp_path / "nothing", out=tmp_path / "out")

    def test_unknown_class(self, runs, tmp_path):
        with pytest.raises(UserError, match="--class lake: no such class; there are water, land"):
            compare(runs[0], "--class", "lake", out=tmp_path / "out")

    def test_without_matplotlib(self, runs, tmp_path, monkeypatch):
        monkeypatch.setattr(figures, "find_spec", lambda name: None)
        with pytest.raises(UserError, match=r"pip install 'edgedistill\[bench\]'"):
            compare(runs[0], out=tmp_path / "out")

    def test_nothing_valid(self, runs, tmp_path):
        replace_test(runs[0], np.zeros((32, 48), np.uint8), np.zeros((32, 48), bool))
        with pytest.raises(UserError, match="no image has a valid pixel"):
            compare(runs[0], out=tmp_path / "out")


def test_comparing_needs_no_torch():
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'timm', 'onnx', 'tyro')))\n"
        "import distill.compare.command; print('matplotlib' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.stdout.strip(), result.stderr) == ("False", "")
