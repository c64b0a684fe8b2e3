"""deploy.backends: which file is opened for a backend and a precision, and the error if there is none."""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import numpy as np
import pytest

import deploy
from deploy.backends.engine import engine_files, model_file
from deploy.backends.onnxruntime_cpu import SIZES, OrtEngine
from deploy.backends.open import open_engine
from deploy.bundle.engine_files import record_verdict
from deploy.bundle.golden_file import read_golden
from deploy.errors import UserError
from tests.conftest import ROOT
from tests.deploy.precisions import ANSWERS, RED, FakeEngine, add_engine, make_precisions
from tests.deploy.tiny import make_bundle, make_image


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    return make_precisions(tmp_path_factory.mktemp("both") / "bundle", "int8")


@pytest.fixture(scope="module")
def every(tmp_path_factory):
    return make_precisions(tmp_path_factory.mktemp("every") / "bundle", "int8", "fp16")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain") / "bundle"
    make_bundle(folder)
    return folder


def opened(folder, backend="onnxruntime", precision="auto"):
    """The precision of the model that was opened, and the engine's name."""
    model = deploy.load(folder, backend, threads=1, precision=precision)
    (label,) = np.unique(model(RED).labels)
    return next(name for name, answer in ANSWERS.items() if answer == label), model.engine.name


def test_auto_precision_is_int8_where_the_bundle_has_it(both, every, plain):
    assert opened(both) == ("int8", "onnxruntime int8")
    assert opened(every) == ("int8", "onnxruntime int8")
    assert opened(plain) == ("fp32", "onnxruntime fp32")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_precision_can_be_asked_for(every, precision):
    assert opened(every, precision=precision) == (precision, f"onnxruntime {precision}")
    assert opened(every, "auto", precision)[0] == precision


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_a_missing_precision_names_the_command_that_makes_it(plain, precision):
    for backend in ("onnxruntime", "openvino", "auto"):
        with pytest.raises(UserError, match=f"has no {precision} model .* --precision {precision}") as caught:
            open_engine(plain, backend, precision=precision)
        assert f"edgedistill build {plain}" in str(caught.value)


def test_a_stray_file_is_not_of_the_bundle(plain, tmp_path):
    make_bundle(tmp_path / "bundle")
    (tmp_path / "bundle" / "model.int8-cpu.onnx").write_bytes(b"from elsewhere")
    assert opened(tmp_path / "bundle")[0] == "fp32"


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (
            {"backend": "abacus"},
            "unknown backend 'abacus'.*auto, onnxruntime, openvino, onnxruntime-cuda",
        ),
        ({"precision": "int4"}, "unknown precision 'int4'.*fp32"),
        ({"threads": 0}, "threads is 0"),
        ({"backend": "tensorrt", "threads": 0, "fallback": True}, "threads is 0"),
    ],
)
def test_unknown_choices_are_named(plain, choice, message):
    with pytest.raises(UserError, match=message):
        open_engine(plain, **choice)


def test_the_file_of_a_cpu_backend(both):
    for backend in ("onnxruntime", "openvino"):
        assert model_file(both, backend) == both / "model.int8-cpu.onnx"
        assert model_file(both, backend, "fp32") == both / "model.onnx"
    with pytest.raises(UserError, match="has no fp16 model"):
        model_file(both, "openvino", "fp16")
    assert open_engine(both, "onnxruntime", 1).file == both / "model.int8-cpu.onnx"
    if find_spec("openvino"):
        assert open_engine(both, "openvino", 1, "fp32").file == both / "model.onnx"


def test_the_file_of_a_tensorrt_backend(tmp_path):
    folder = make_precisions(tmp_path / "bundle", "int8")
    for precision in ("fp32", "fp16"):
        add_engine(folder, "tensorrt", precision)
    add_engine(folder, "tensorrt-rtx", "int8")
    engines = folder / "engines"
    assert model_file(folder, "tensorrt") == engines / "tensorrt-fp16.engine"
    assert model_file(folder, "tensorrt", "fp32") == engines / "tensorrt-fp32.engine"
    assert model_file(folder, "tensorrt-rtx") == engines / "tensorrt-rtx-int8.engine"
    assert set(engine_files(folder, "tensorrt")) == {"fp32", "fp16"}
    record_verdict(engines / "tensorrt-fp16.engine", False)
    assert model_file(folder, "tensorrt") == engines / "tensorrt-fp32.engine"
    with pytest.raises(UserError, match=r"no engine for tensorrt int8; build one: .* --backend tensorrt"):
        model_file(folder, "tensorrt", "int8")


def refuse(*_, **__):
    raise UserError("engines/x.engine: was built for another GPU; build it again")


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_a_refusing_tensorrt_is_an_error_unless_one_asks_for_the_cpu(both, backend, monkeypatch):
    monkeypatch.setattr("deploy.backends.tensorrt_gpu.engine.open_trt", refuse)
    with pytest.raises(UserError, match="another GPU"):
        deploy.load(both, backend)
    with pytest.warns(RuntimeWarning, match=r"another GPU; build it again; running on the CPU"):
        model = deploy.load(both, backend, threads=1, fallback=True)
    assert model.engine.name in ("onnxruntime fp32", "openvino fp32")  # INT8 has no record of its gate
    with pytest.warns(RuntimeWarning), pytest.raises(UserError, match="has no fp16 model"):
        deploy.load(both, backend, precision="fp16", fallback=True)


def test_fallback_changes_nothing_where_tensorrt_runs(both, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "deploy.backends.tensorrt_gpu.engine.open_trt",
        lambda *how, **_: asked.append(how) or FakeEngine("trt"),
    )
    assert deploy.load(both, "tensorrt-rtx", precision="fp32", fallback=True).engine.name == "trt"
    assert asked == [(both, "tensorrt-rtx", "fp32")]


def test_fallback_is_for_tensorrt_only(both, monkeypatch):
    monkeypatch.setattr("deploy.backends.open.open_cpu", lambda *_: refuse())
    with pytest.raises(UserError, match="another GPU"):
        deploy.load(both, "onnxruntime", fallback=True)


def test_only_what_is_opened_is_checked(tmp_path):
    folder = make_precisions(tmp_path / "bundle", "int8")
    (folder / "model.onnx").write_bytes(b"damaged")
    assert opened(folder)[0] == "int8"
    make_precisions(folder, "int8")
    for backend, precision, broken in (
        ("onnxruntime", "fp32", "model.onnx"),
        ("onnxruntime", "auto", "model.int8-cpu.onnx"),
        ("auto", "fp32", "model.onnx"),
        ("auto", "auto", "golden.npz"),
    ):
        (folder / broken).write_bytes(b"damaged")
        with pytest.raises(UserError, match=f"{broken}: has 7 bytes"):
            deploy.load(folder, backend, precision=precision)
        (folder / broken).unlink()
        with pytest.raises(UserError, match=f"{broken}: is missing"):
            deploy.load(folder, backend, precision=precision)
        make_precisions(folder, "int8")


def test_onnxruntime_that_is_not_installed(both, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"onnxruntime: cannot be imported .*; pip install onnxruntime"):
        open_engine(both, "onnxruntime")


@pytest.mark.parametrize("spinning", [True, False])
@pytest.mark.parametrize("threads", [None, 1, 2])
def test_bound_outputs_are_those_of_a_plain_run(plain, threads, spinning):
    engine = OrtEngine(plain / "model.onnx", threads, spinning=spinning)
    reference = OrtEngine(plain / "model.onnx", threads=1)
    inputs = read_golden(plain)["inputs"]
    for batch in (inputs[:1], inputs, np.repeat(inputs, 2, axis=0)[::2], np.asfortranarray(inputs)):
        first = reference.run(batch)  # the first run of a shape is not bound
        reference = OrtEngine(plain / "model.onnx", threads=1)
        for _ in range(3):
            bound = engine.run(batch)
            assert all(np.array_equal(bound[name], first[name]) for name in ("labels", "logits"))
            assert (bound["labels"].dtype, bound["logits"].dtype) == (np.uint8, np.float32)


def test_a_frozen_input_is_read(plain):
    engine, batch = OrtEngine(plain / "model.onnx", 1), read_golden(plain)["inputs"]
    expected = engine.run(batch)["labels"].copy()
    batch.flags.writeable = False
    np.testing.assert_array_equal(engine.run(batch)["labels"], expected)


def test_outputs_belong_to_the_caller(plain):
    engine = OrtEngine(plain / "model.onnx", threads=1)
    batches = [make_image(seed=seed)[None] for seed in range(8)]
    kept = [engine.run(batch) for batch in batches]
    copies = [{name: array.copy() for name, array in outputs.items()} for outputs in kept]
    for batch in batches[::-1]:
        engine.run(batch)["labels"][:] = 7  # may be written to
    for outputs, copy in zip(kept, copies, strict=True):
        for name, array in copy.items():
            np.testing.assert_array_equal(outputs[name], array)


def test_arrays_that_nobody_holds_are_written_again(plain):
    engine = OrtEngine(plain / "model.onnx", threads=1)
    batch = make_image()[None]
    engine.run(batch)
    assert len({engine.run(batch)["labels"].ctypes.data for _ in range(20)}) == 1


def test_memory_does_not_grow_with_the_sizes_of_batches(plain):
    engine = OrtEngine(plain / "model.onnx", 1)
    for count in range(1, 3 * SIZES):
        for _ in range(2):
            assert len(engine.run(np.zeros((count, 32, 48, 3), np.uint8))["labels"]) == count
    assert len(engine._pools) <= SIZES


def test_wrong_input_is_refused_each_time(plain):
    engine = OrtEngine(plain / "model.onnx", threads=1)
    for _ in range(3):
        with pytest.raises(Exception, match=r"(?i)unexpected input data type|float"):
            engine.run(make_image()[None].astype(np.float32))
        engine.run(make_image()[None])


def test_threads_share_an_engine(plain):
    engine = OrtEngine(plain / "model.onnx", threads=2)
    images = [make_image(seed=seed) for seed in range(12)]
    batches = [*(image[None] for image in images), *(np.stack([image, image]) for image in images)]
    serial = [{name: array.copy() for name, array in engine.run(batch).items()} for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        outputs = list(pool.map(lambda number: engine.run(batches[number % len(batches)]), range(200)))
    for number, found in enumerate(outputs):
        for name, array in serial[number % len(batches)].items():
            np.testing.assert_array_equal(found[name], array)


def test_nothing_is_written_into_the_home_folder(plain, tmp_path):
    """ONNX Runtime 1.32 would write an identifier of the machine there, and look up a host."""
    home = tmp_path / "home"
    home.mkdir()
    own = ("ORT_DISABLE_TELEMETRY", "EDGEDISTILL_CACHE", "XDG_CACHE_HOME")
    env = {key: value for key, value in os.environ.items() if key not in own} | {"HOME": str(home)}
    code = "import sys, deploy; deploy.load(sys.argv[1], 'onnxruntime', threads=1)"
    subprocess.run([sys.executable, "-c", code, plain], cwd=ROOT, env=env, check=True, timeout=60)
    assert list(home.rglob("*")) == []


IMPORT = re.compile(r"^\s*(?:import|from) onnxruntime\b", re.MULTILINE)


def test_onnx_runtime_is_imported_at_one_place():
    """Where its telemetry is turned off."""
    packages = ("benchmarks", "deploy", "distill", "edgedistill", "examples", "student", "teacher")
    files = [path for name in packages for path in (ROOT / name).rglob("*.py")]
    found = [path for path in files if IMPORT.search(path.read_text(encoding="utf-8"))]
    assert found == [ROOT / "deploy" / "backends" / "onnxruntime_cpu.py"]
