"""OpenVINO: the same outputs as ONNX Runtime, from any thread, and no telemetry."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

import deploy
from deploy.backends.onnxruntime_cpu import OrtEngine
from deploy.backends.setting import computes_bf16
from deploy.bundle.golden_file import read_golden
from deploy.bundle.manifest import MODEL
from deploy.errors import UserError
from deploy.files.atomic import atomic_write
from tests.conftest import ROOT
from tests.deploy.precisions import RED, make_precisions
from tests.deploy.tiny import SPECS, WEIGHTS, make_bundle, make_image, make_model

pytest.importorskip("openvino", reason="openvino is not installed here (pip install -e '.[openvino]')")

from deploy.backends import openvino_cpu as ov
from deploy.backends.openvino_cpu import OvEngine, import_openvino


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    make_bundle(folder / "rgb")
    make_bundle(folder / "sar", "sar")
    make_bundle(folder / "tiled", "rgb", resize="tile")
    return folder


@pytest.mark.parametrize("name", ["rgb", "sar"])
def test_labels_and_logits_are_those_of_onnx_runtime(folder, name):
    inputs = read_golden(folder / name)["inputs"]
    engine = OvEngine(folder / name / MODEL, threads=1)
    for batch in (inputs, inputs[:1], np.concatenate([inputs] * 3)):
        expected, given = OrtEngine(folder / name / MODEL, threads=1).run(batch), engine.run(batch)
        np.testing.assert_array_equal(given["labels"], expected["labels"])
        np.testing.assert_allclose(given["logits"], expected["logits"], atol=1e-5)
        assert (given["labels"].dtype, given["logits"].dtype) == (np.uint8, np.float32)


@pytest.mark.parametrize("kind", ["rgb", "sar"])
def test_fp32_stays_fp32_on_cpus_with_bf16(kind):
    """bf16 has 8 bits of precision: with it the logits would be off by about 1e-2."""
    layers = np.random.default_rng(0).normal(size=WEIGHTS[kind].shape)
    model = make_model(SPECS[kind], layers)
    batch = make_image(kind)[None] if kind == "rgb" else np.moveaxis(make_image(kind), 2, 0)[None].copy()
    expected, given = OrtEngine(model, threads=1).run(batch), OvEngine(model, threads=1).run(batch)
    np.testing.assert_allclose(given["logits"], expected["logits"], atol=1e-5)


def test_load_takes_it_by_name(folder, tmp_path):
    for name in ("rgb", "tiled"):
        image = make_image(size=(70, 90))
        expected = deploy.load(folder / name, "onnxruntime", threads=1)(image)
        model = deploy.load(folder / name, "openvino", threads=1)
        assert model.engine.name == "openvino fp32"
        np.testing.assert_array_equal(model(image).labels, expected.labels)
    both = make_precisions(tmp_path / "both", "int8")
    model = deploy.load(both, "openvino")
    assert model.engine.name == "openvino int8"
    assert (model(RED).labels == 1).all()


def test_outputs_belong_to_the_caller(folder):
    engine = OvEngine(folder / "rgb" / MODEL, threads=1)
    batches = [make_image(seed=seed)[None] for seed in range(2)]
    first = engine.run(batches[0])
    kept = {name: array.copy() for name, array in first.items()}
    second = engine.run(batches[1])
    assert (first["labels"] != second["labels"]).any()
    for name, array in first.items():
        np.testing.assert_array_equal(array, kept[name])
        array[:] = 7  # may be written to
    np.testing.assert_array_equal(engine.run(batches[0])["labels"], kept["labels"])


def test_many_results_may_be_kept(folder):
    engine, reference = (OvEngine(folder / "rgb" / MODEL, threads=1) for _ in range(2))
    batches = [make_image(seed=seed)[None] for seed in range(8)]
    kept = [engine.run(batch) for batch in batches]
    assert all(
        np.array_equal(outputs[name], expected)
        for outputs, batch in zip(kept, batches, strict=True)
        for name, expected in reference.run(batch).items()
    )
    kept.clear()
    assert len({engine.run(batches[0])["labels"].ctypes.data for _ in range(20)}) <= 3


def test_results_of_threads_at_once_stay(folder):
    engine = OvEngine(folder / "rgb" / MODEL, threads=2)
    images = [make_image(seed=seed) for seed in range(12)]
    batches = [*(image[None] for image in images), *(np.stack([image, image]) for image in images)]
    serial = [{name: array.copy() for name, array in engine.run(batch).items()} for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        outputs = list(pool.map(lambda number: engine.run(batches[number % len(batches)]), range(400)))
    for number, found in enumerate(outputs):
        for name, array in serial[number % len(batches)].items():
            np.testing.assert_array_equal(found[name], array)


def test_a_blob_gives_the_same_engine(folder):
    batch = read_golden(folder / "rgb")["inputs"]
    compiled = OvEngine(folder / "rgb" / MODEL, threads=1)
    adopted = OvEngine(folder / "rgb" / MODEL, threads=1, blob=compiled.export())
    assert adopted._network is None  # nothing was read
    for images in (batch[:1], batch):  # a larger batch is compiled from the file
        for _ in range(2):
            found, expected = adopted.run(images), compiled.run(images)
            assert all(np.array_equal(found[name], expected[name]) for name in ("labels", "logits"))


def test_an_engine_from_a_blob_takes_no_other_network_for_batches(tmp_path):
    """It reads its file when the first batch comes; by then another network may be there."""
    file, image = tmp_path / MODEL, make_image()[None]
    file.write_bytes(make_model(SPECS["rgb"], WEIGHTS["rgb"]))
    engine = OvEngine(file, threads=1, blob=OvEngine(file, threads=1).export())
    engine.run(image)
    with atomic_write(file) as other:
        other.write(make_model(SPECS["rgb"], WEIGHTS["rgb"][::-1]))
    for _ in range(2):
        with pytest.raises(UserError, match=r"model\.onnx: has changed since it was loaded; load it again"):
            engine.run(np.concatenate([image, image]))
    engine.run(image)  # compiled before


@pytest.mark.parametrize("blob", [b"", b"not a blob", b"\0" * 1000])
def test_a_blob_that_is_refused_is_ignored(folder, blob):
    batch = read_golden(folder / "rgb")["inputs"][:1]
    engine = OvEngine(folder / "rgb" / MODEL, threads=1, blob=blob)
    expected = OvEngine(folder / "rgb" / MODEL, threads=1).run(batch)
    np.testing.assert_array_equal(engine.run(batch)["labels"], expected["labels"])


def test_bf16_is_less_precise_where_the_cpu_has_it(folder):
    layers = np.random.default_rng(0).normal(size=WEIGHTS["rgb"].shape)
    model, batch = make_model(SPECS["rgb"], layers), make_image("rgb")[None]
    exact, rounded = (OvEngine(model, 1, bf16=bf16).run(batch)["logits"] for bf16 in (False, True))
    np.testing.assert_allclose(rounded, exact, atol=0.1)
    assert np.array_equal(rounded, exact) != computes_bf16()


def test_threads_share_an_engine(folder):
    model = deploy.load(folder / "rgb", "openvino", threads=2)
    images = [make_image(seed=seed, size=(30 + seed, 60 - seed)) for seed in range(24)]
    calls = [*images, *([image, image[::-1]] for image in images)]  # one by one, and in pairs
    serial = [model(call) for call in calls]
    fresh = deploy.load(folder / "rgb", "openvino", threads=2)
    with ThreadPoolExecutor(8) as pool:
        for one, other in zip(serial, pool.map(fresh, calls), strict=True):
            np.testing.assert_array_equal(one.labels, other.labels)
            np.testing.assert_array_equal(one.probabilities, other.probabilities)


def test_any_memory_layout(folder):
    engine = OvEngine(folder / "rgb" / MODEL, threads=1)
    batch = read_golden(folder / "rgb")["inputs"]
    expected = engine.run(batch)["labels"]
    frozen = batch.copy()
    frozen.flags.writeable = False
    for same in (np.asfortranarray(batch), np.repeat(batch, 2, axis=0)[::2], frozen):
        np.testing.assert_array_equal(engine.run(same)["labels"], expected)


@pytest.mark.parametrize("content", [b"not a graph", b""])
def test_what_is_no_model_is_named(tmp_path, content):
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(UserError, match=r"model\.onnx: OpenVINO \d+\.\S+ cannot load it \(Unable") as caught:
        OvEngine(tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_cut_one_are_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.onnx: OpenVINO .* cannot load it") as caught:
        OvEngine(tmp_path / "none.onnx")
    assert "\n" not in str(caught.value)
    model = make_model(SPECS["rgb"], WEIGHTS["rgb"])
    with pytest.raises(UserError, match=r"the model: OpenVINO .* cannot load it"):
        OvEngine(model[: len(model) // 2])


def test_an_unknown_operator_is_named():
    model = onnx.load_from_string(make_model(SPECS["rgb"], WEIGHTS["rgb"]))
    model.graph.node[-1].op_type = "Abracadabra"
    with pytest.raises(UserError, match=r"OpenVINO .* cannot load it \(.*Abracadabra") as caught:
        OvEngine(model.SerializeToString())
    assert "\n" not in str(caught.value)


def test_model_without_the_outputs_is_named():
    model = onnx.load_from_string(make_model(SPECS["rgb"], WEIGHTS["rgb"]))
    del model.graph.output[1]
    with pytest.raises(UserError, match="has outputs labels, needs labels, logits"):
        OvEngine(model.SerializeToString())


def test_without_openvino_the_message_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UserError, match=r"openvino: .*pip install 'edgedistill\[openvino\]'"):
        deploy.load(folder / "rgb", "openvino")


def test_threads_at_once_share_one_core(monkeypatch):
    class Core:
        def __init__(self):
            time.sleep(0.02)  # so that the others get here meanwhile

    monkeypatch.setattr(ov, "import_openvino", lambda: SimpleNamespace(Core=Core))
    monkeypatch.setattr(ov, "_make_core", cache(ov._make_core.__wrapped__))  # the real one is never released
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(lambda _: ov.shared_core(), range(4)))) == 1


QUIET = """
import os, sys, pathlib
import numpy
from deploy.backends.open import open_engine

engine = open_engine(pathlib.Path(sys.argv[1]), "openvino", 1)
engine.run(numpy.zeros((1, 32, 48, 3), numpy.uint8))
loud = [name for name in sys.modules if name.startswith(("openvino_telemetry", "openvino.tools.ovc"))]
assert not loud, loud
assert not list(pathlib.Path.home().iterdir()), list(pathlib.Path.home().iterdir())
heavy = {"torch", "onnx", "onnxruntime"} & set(sys.modules)
assert not heavy, heavy
import openvino
assert not hasattr(openvino, "abacus")
from openvino import convert_model  # who wants the converter can have it
assert convert_model is sys.modules["openvino.tools.ovc"].convert_model
"""


def test_it_sends_no_telemetry_and_writes_nothing_at_home(folder, tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", QUIET, str(folder / "rgb")],
        cwd=ROOT,
        env={"HOME": str(tmp_path), "PATH": "", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (run.returncode, run.stderr) == (0, "")


CTRL_C = """
import os, pathlib, signal, sys, time
from deploy.backends.open import open_engine

first = open_engine(pathlib.Path(sys.argv[1]), "openvino", 1)
second = open_engine(pathlib.Path(sys.argv[1]), "openvino", 1)
del first
del second
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)
except KeyboardInterrupt:
    print("stopped")
"""


def test_ctrl_c_after_an_engine_was_replaced_is_no_crash(folder):
    command = [sys.executable, "-c", CTRL_C, str(folder / "rgb")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout, run.stderr) == (0, "stopped\n", "")


def test_import_is_the_real_module():
    assert import_openvino() is sys.modules["openvino"]
