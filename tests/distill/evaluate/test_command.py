"""`edgedistill evaluate`: a bundle on labeled images of every layout."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deploy.errors import UserError
from deploy.evaluation.labeled_data import DataInfo, read_labeled, write_info
from deploy.evaluation.segmentation_metrics import SegmentationMetrics
from deploy.files.images import read_image, write_png
from deploy.loading import load
from distill import cli
from tests.conftest import ROOT
from tests.deploy.two_classes import IMAGES, make_two_class_bundle, scene


@pytest.fixture
def run(tmp_path: Path) -> Path:
    make_two_class_bundle(tmp_path / "run" / "student.bundle")
    return tmp_path / "run"


def evaluate(*arguments: object) -> int:
    return cli.main(["evaluate", *map(str, arguments), "--backend", "onnxruntime"])


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def unsplit(root: Path, count: int = 5) -> Path:
    """A folder to train on that is not split: land is 255, water 0."""
    for index in range(count):
        image, label, _ = scene(50 + index)
        (root / "images").mkdir(parents=True, exist_ok=True)
        np.save(root / "images" / f"{index}.npy", image)
        write_png(root / "masks" / f"{index}.png", 255 * label)
    classes = [{"name": "water", "value": 0}, {"name": "land", "value": 255}]
    (root / "classes.json").write_text(json.dumps(classes))
    return root


def test_the_files_hold_what_the_metrics_say(run, tmp_path, capsys):
    assert evaluate(run, run, "--out", tmp_path / "out", "--worst", 2) == 0
    model, metrics = load(run / "student.bundle", "onnxruntime"), SegmentationMetrics(2)
    for _, image, label, valid in read_labeled(run / "data" / "test", 2):
        metrics.update(model(image).labels, label, valid)
    scores = metrics.scores()
    assert f"{100 * scores.miou:.2f}" in capsys.readouterr().out
    images, classes = (rows_of(tmp_path / "out" / f"per_{kind}.csv") for kind in ("image", "class"))
    assert len(images) == IMAGES
    assert [float(row["IoU"]) for row in classes] == pytest.approx(scores.iou, abs=1e-6)
    matrix = rows_of(tmp_path / "out" / "confusion.csv")
    counted = [[int(row[name]) for name in ("water", "land", "no class")] for row in matrix]
    assert counted == metrics.confusion.tolist()
    worst = sorted((tmp_path / "out" / "worst").iterdir())
    lowest = min(images, key=lambda row: float(row["miou"]))
    assert [path.name[:4] for path in worst] == ["001-", "002-"]
    assert worst[0].name == f"001-{lowest['image']}.png"


def test_all_images_of_a_folder_that_is_not_split(run, tmp_path, capsys):
    data = unsplit(tmp_path / "new")
    assert evaluate(run, data, "--out", tmp_path / "out", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["data"][0]["split"] == "all"
    assert result["data"][0]["images"] == 5
    assert np.sum(result["data"][0]["confusion"]) == 5 * 32 * 48  # 255 is a class here, not void


def test_without_classes_json_masks_hold_ids(run, tmp_path, capsys):
    data = unsplit(tmp_path / "new")
    (data / "classes.json").unlink()
    with pytest.raises(UserError, match="the masks hold the ids 0 and 255, but 255 is void"):
        evaluate(run, data, "--out", tmp_path / "out")
    for path in (data / "masks").iterdir():
        write_png(path, read_image(path)[..., 0] // 255)
    assert evaluate(run, data, "--out", tmp_path / "out", "--json") == 0
    assert np.sum(json.loads(capsys.readouterr().out)["data"][0]["confusion"], axis=1).all()


@pytest.mark.parametrize("layout", ["classes.json without values", "a split without classes.json"])
def test_masks_of_0_and_255_are_never_scored_as_one_class(run, tmp_path, layout):
    data = unsplit(tmp_path / "new")
    if layout.startswith("classes"):
        (data / "classes.json").write_text(json.dumps(["water", "land"]))
    else:
        (data / "classes.json").unlink()
        (data / "test").mkdir()
        for kind in ("images", "masks"):
            (data / kind).rename(data / "test" / kind)
    with pytest.raises(UserError, match="the masks hold the ids 0 and 255, but 255 is void"):
        evaluate(run, data, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def split(root: Path, *names: str) -> Path:
    """A folder to train on with these splits: land is 255, water 0."""
    for name in names:
        unsplit(root / name, 2)
        (root / name / "classes.json").rename(root / "classes.json")
    return root


@pytest.mark.parametrize("named", [True, False])
def test_another_split_never_stands_in_for_the_one_asked(run, tmp_path, named, capsys):
    data = split(tmp_path / "new", "train", "val")
    if not named:
        (data / "classes.json").unlink()
    with pytest.raises(UserError, match=r"new.*; give --split val$"):
        evaluate(run, data, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    if named:
        assert evaluate(run, data, "--split", "val", "--out", tmp_path / "out", "--json") == 0
        assert json.loads(capsys.readouterr().out)["data"][0]["split"] == "val"


def test_a_folder_without_any_split_is_answered_with_what_is_needed(run, tmp_path):
    (tmp_path / "new").mkdir()
    with pytest.raises(UserError, match=r"with test/images and test/masks$"):
        evaluate(run, tmp_path / "new")


def test_data_of_a_run_without_a_test_split_are_called_val(run, tmp_path, capsys):
    write_info(run / "data", DataInfo("mine", "val", 0))
    assert evaluate(run, run, "--out", tmp_path / "out", "--json") == 0
    assert json.loads(capsys.readouterr().out)["data"][0]["split"] == "val"


@pytest.mark.parametrize("layout", ["unsplit", "split", "split without classes.json"])
def test_a_foreground_of_255_is_scored_as_in_training(run, tmp_path, capsys, layout):
    data = unsplit(tmp_path / "new", 2) if layout == "unsplit" else split(tmp_path / "new", "test")
    (data / "classes.json").write_text(json.dumps(["water", "land"]))
    if layout.endswith("classes.json"):
        (data / "classes.json").unlink()
    write_info(run / "data", DataInfo("mine", "test", 0))
    arguments = (run, data, run, "--foreground", 255, "--out", tmp_path / "out", "--json")
    assert evaluate(*arguments) == 0
    new, own = (one["confusion"] for one in json.loads(capsys.readouterr().out)["data"])
    assert np.sum(new) == 2 * 32 * 48
    assert np.sum(new, axis=1).all()
    assert np.sum(own, axis=1).all()  # those of a run hold class ids


def test_domain_shift_is_measured_from_the_first(run, tmp_path, capsys):
    data = unsplit(tmp_path / "new")
    assert evaluate(run, run, data, "--out", tmp_path / "out") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if str(tmp_path) in line][1:3]
    assert "+0.00" in lines[0]
    assert "all" in lines[1].split()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"1-run", "2-new"}


def test_a_preset_of_other_classes_is_refused(run):
    with pytest.raises(UserError, match="quick: has the classes land, water, the bundle water, land"):
        evaluate(run, "quick")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: neither a folder nor a preset"),
        (["smok"], r"did you mean smoke\?"),
        (["run", "--split", "held"], "held/images: no such folder"),
        (["run", "--worst", "-1"], "--worst -1: must be 0 or more"),
    ],
)
def test_mistakes(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        evaluate(run, *arguments)


def test_it_needs_no_training_packages(run, tmp_path):
    data = unsplit(tmp_path / "new", 2)
    blocked = "torch", "cv2", "tyro", "rich", "timm", "accelerate", "onnx", "matplotlib"
    code = f"""
import sys
sys.modules.update(dict.fromkeys({blocked}))
from distill.cli import main
sys.exit(main({["evaluate", str(run), str(data), "--out", str(tmp_path / "out"), "--backend", "onnxruntime"]}))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
