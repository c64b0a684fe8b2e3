"""Two steps of every stage on pixels held between percentiles: from the files to bundles in INT8."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest

import deploy
from deploy.bundle.bundle_files import read_manifest
from deploy.bundle.golden_file import read_golden
from deploy.errors import UserError
from distill.pipeline.pipeline import run
from distill.pipeline.prepare import prepare
from distill.run import parse
from distill.tasks.registry import open_splits
from tests.distill.tiny import RUN


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    config = parse([*RUN, "--data.scale=percentile", f"--out={tmp_path_factory.mktemp('held') / 'run'}"])
    run(config)
    return config


def test_manifest_statistics_and_checkpoint_have_the_percentiles_of_the_training_split(finished):
    train = open_splits(finished.data, finished.seed).train
    samples = [train[index] for index in range(len(train))]
    pixels = np.concatenate([one.image[:, one.valid].numpy() for one in samples], axis=1).astype(float)
    low, high = np.percentile(pixels, (2, 98), axis=1)
    spec = read_manifest(finished.out / "student.bundle").input
    assert spec.clip == tuple((pytest.approx(a), pytest.approx(b)) for a, b in zip(low, high, strict=True))
    held = pixels.clip(low[:, None], high[:, None])
    assert spec.mean == pytest.approx(held.mean(axis=1), rel=1e-5)
    assert spec.std == pytest.approx(held.std(axis=1), rel=1e-5)
    assert read_manifest(finished.out / "teacher.bundle").input == spec
    stats = json.loads((finished.out / "stats.json").read_text())
    assert stats["clip"] == [list(ends) for ends in spec.scale.limits]
    assert stats["log_floor"] is None


def test_every_gate_is_passed(finished):
    bundle = finished.out / "student.bundle"
    assert json.loads((bundle / "receipt.json").read_text())["passed"]
    golden = read_golden(bundle)
    for backend in ("onnxruntime", "openvino"):
        found = deploy.load(bundle, backend, precision="fp32").engine.run(golden["inputs"])
        np.testing.assert_allclose(found["logits"], golden["logits"], rtol=1e-3, atol=1e-4)
    kinds = [node.op_type for node in onnx.load(str(bundle / "model.int8-cpu.onnx")).graph.node]
    assert kinds.index("Max") < kinds.index("Min") < kinds.index("QuantizeLinear")


def test_values_beyond_the_range_are_those_at_its_ends_and_nan_is_no_data(finished):
    spec = read_manifest(finished.out / "student.bundle").input
    low, high = np.array(spec.clip, np.float32).T
    image = np.random.default_rng(0).uniform(low, high, (48, 48, 2)).astype(np.float32)
    image[10:20, 10:20], image[30:40, 30:40] = low, high
    beyond = image.copy()
    beyond[10:20, 10:20], beyond[30:40, 30:40], beyond[35, 35] = low - 300, high + 3e5, 1e30
    model = deploy.load(finished.out / "student.bundle", precision="fp32")
    expected = model(image)
    found = model(beyond)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-6)
    beyond[:5, :7, 1] = np.nan
    beyond[5, 0, 0] = np.inf  # as the readers of training have it
    void = model(beyond).labels == 255
    assert void[:5, :7].all()
    assert void[5, 0]
    assert void.sum() == 36


def test_a_resumed_run_keeps_its_numbers(finished):
    before = json.loads((finished.out / "stats.json").read_text())
    stats = prepare(replace(finished, resume=True)).stats
    assert [list(ends) for ends in stats.scale.limits] == before["clip"]
    (finished.out / "stats.json").unlink()
    assert prepare(replace(finished, resume=True)).stats == stats  # computed again
    assert json.loads((finished.out / "stats.json").read_text()) == before
    other = replace(finished, resume=True, data=replace(finished.data, scale="log"))
    with pytest.raises(
        UserError, match=r"other settings: data\.scale \(data\.scale was percentile, is log\)"
    ):
        prepare(other)
