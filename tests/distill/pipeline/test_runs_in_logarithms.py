"""A run that takes the logarithms of amplitudes: from the files to the bundle in INT8."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest

import deploy
from deploy.bundle.bundle_files import read_manifest
from deploy.bundle.golden_file import read_golden
from deploy.errors import UserError
from deploy.files.images import write_png
from distill import cli
from distill.pipeline.pipeline import run
from distill.pipeline.prepare import prepare
from distill.pipeline.student_choice import target_of
from distill.pipeline.validation import check_config
from distill.run import parse
from distill.tasks.registry import open_splits, task_of
from tests.distill.tiny import RUN, check_against_data

SHORT = (
    *("smoke", "--data.name=folder", "--data.size=32", "32", "--augment.crop=32", "32", "--no-baseline"),
    *("--teacher.arch=edge/8", "--student.arch=edge/8", "--student.no-detail", "--distill.start=own"),
    *("--precision=fp32", "--no-page"),
)


def amplitudes(label: np.ndarray, seed: int) -> np.ndarray:
    """H×W×2 with long tails: 20 times as much where the label is 1; zeros, and a corner without data."""
    noise = np.random.default_rng(seed).normal(0, 1.2, (*label.shape, 2))
    image = np.exp(noise + np.log((1e-3, 40.0)) + 3 * label[..., None]).astype(np.float32)
    image[0, :8] = 0
    image[:4, -6:] = np.nan
    return image


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("amplitudes")
    for split, count in (("train", 10), ("val", 3), ("test", 3)):
        for index in range(count):
            label = np.zeros((32, 32), np.uint8)
            label[8:24, index % 16 : index % 16 + 16] = 1
            (root / split / "images").mkdir(parents=True, exist_ok=True)
            np.save(root / split / "images" / f"{index}.npy", amplitudes(label, seed=index))
            write_png(root / split / "masks" / f"{index}.png", label)
    return root


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("log") / "run"
    learns = (
        "--student-train.steps=40",
        "--student-train.lr=0.01",
        "--student-train.batch-size=4",
        "--no-teacher",
    )
    config = parse([*SHORT, f"--data.root={data}", "--data.scale=log", f"--out={out}", *learns])
    run(config)
    return config


def test_the_bundle_normalizes_logarithms_by_the_training_split(finished):
    spec = read_manifest(finished.out / "student.bundle").input
    splits = open_splits(finished.data)
    samples = [splits.train[index] for index in range(len(splits.train))]
    pixels = np.concatenate([sample.image[:, sample.valid].numpy() for sample in samples], axis=1).astype(
        float
    )
    floor = pixels.mean(axis=1) / 1e4
    assert spec.log_floor == pytest.approx(floor, rel=1e-6)
    logarithms = np.log(np.maximum(pixels, floor[:, None]))
    assert spec.mean == pytest.approx(logarithms.mean(axis=1), rel=1e-5)
    assert spec.std == pytest.approx(logarithms.std(axis=1), rel=1e-5)
    assert (spec.dtype, spec.normalize, spec.nodata) == ("float32", "set", "nan")
    stats = json.loads((finished.out / "stats.json").read_text())
    assert stats["log_floor"] == list(spec.log_floor or ())


def test_labels_in_torch_onnx_and_int8_are_the_same(finished):
    bundle = finished.out / "student.bundle"
    receipt = json.loads((bundle / "receipt.json").read_text())
    assert [hop["name"] for hop in receipt["hops"]] == ["torch", "onnx", "runtime"]
    assert receipt["passed"]
    assert all(hop["agreement_first"] >= 0.999 for hop in receipt["hops"])
    golden = read_golden(bundle)
    assert 0.01 < np.mean(golden["labels"]) < 0.99  # of both classes
    for precision, agreement, correlation in (("fp32", 0.999, 0.9999), ("int8", 0.95, 0.95)):
        found = deploy.load(bundle, "onnxruntime", precision=precision).engine.run(golden["inputs"])
        assert np.mean(found["labels"] == golden["labels"]) >= agreement, precision
        assert np.corrcoef(found["logits"].ravel(), golden["logits"].ravel())[0, 1] > correlation, precision
    kinds = [node.op_type for node in onnx.load(str(bundle / "model.int8-cpu.onnx")).graph.node]
    assert {"Log", "QuantizeLinear"} <= set(kinds)
    assert kinds.index("Log") < kinds.index("QuantizeLinear")


def test_pixels_without_data_are_void(finished):
    image = np.load(finished.data.root / "test" / "images" / "0.npy")
    labels = deploy.load(finished.out / "student.bundle", precision="fp32")(image).labels
    assert (labels[:4, -6:] == 255).all()
    assert (labels != 255).sum() == 32 * 32 - 24


def test_a_resumed_run_keeps_its_scale(finished):
    assert prepare(replace(finished, resume=True)).stats.log_floor is not None
    other = replace(finished, resume=True, data=replace(finished.data, scale="linear"))
    with pytest.raises(UserError, match=r"other settings: data\.scale \(data\.scale was log, is linear\)"):
        prepare(other)
    path = finished.out / "config.json"
    before = path.read_text()
    old = {name: value for name, value in json.loads(before).items() if name != "data.scale"}
    path.write_text(json.dumps(old))  # of before the option existed
    try:
        with pytest.raises(UserError, match=r"data\.scale was linear, is log"):
            prepare(replace(finished, resume=True))
    finally:
        path.write_text(before)


def test_its_weights_teach_runs_of_the_same_scale(finished, data, tmp_path):
    weights = finished.out / "student" / "best.safetensors"
    fields = [*SHORT, f"--data.root={data}", f"--teacher.weights={weights}", f"--out={tmp_path / 'run'}"]
    with pytest.raises(UserError, match=r"trained with --data\.scale log, this run has linear; use log here"):
        prepare(parse(fields))
    ready = [*fields, "--teacher-train.steps=0", f"--teacher.classes={tmp_path / 'map.json'}"]
    (tmp_path / "map.json").write_text('{"class_0": "class_0", "class_1": "class_1"}')
    with pytest.raises(UserError, match=r"trained with --data\.scale log; a teacher needs linear here"):
        prepare(parse(ready))


def test_its_bundle_teaches_a_linear_run(finished, data, tmp_path):
    teacher = f"--teacher.bundle={finished.out / 'student.bundle'}"
    context = prepare(parse([*SHORT, f"--data.root={data}", teacher, f"--out={tmp_path / 'run'}"]))
    assert context.stats.log_floor is None


@pytest.mark.parametrize("scale", ["log", "percentile"])
@pytest.mark.parametrize("normalize", ["image", "patch"])
def test_statistics_of_the_image_are_refused(scale, normalize):
    config = parse([*RUN, f"--data.scale={scale}", f"--data.normalize={normalize}"])
    with pytest.raises(
        UserError, match=f"--data.scale {scale}: does not go with --data.normalize {normalize}"
    ):
        check_config(config, 1)


@pytest.mark.parametrize("scale", ["log", "percentile"])
def test_grasps_are_refused(scale):
    config = parse(["quick-grasp", f"--data.scale={scale}"])
    with pytest.raises(UserError, match=rf"--data\.scale {scale}: is not for grasps"):
        check_against_data(config, open_splits(config.data))


def test_decibels_are_refused_with_the_exit_code_of_mistakes(tmp_path):
    with pytest.raises(
        UserError, match=r"channel VV has the mean -.*decibels are logarithms already"
    ) as error:
        cli.main(["run", *RUN, "--data.scale=log", f"--out={tmp_path / 'run'}"])
    assert error.value.exit_code == 2


@pytest.mark.parametrize("scale", ["linear", "log", "percentile"])
def test_networks_are_timed_with_their_scale(scale):
    config = parse([*RUN, f"--data.scale={scale}"])
    splits = open_splits(config.data)
    assert target_of(config, splits, task_of(config, splits)).spec.scale.name == scale
