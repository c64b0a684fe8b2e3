"""Builds that must fail: what TensorRT-RTX refuses, Ctrl-C, full disks; no files are left behind."""

import errno
import os
import signal
import threading
from pathlib import Path

import onnx
import pytest

from deploy.backends.tensorrt_gpu import builder as trt_builder
from deploy.backends.tensorrt_gpu import progress as trt_progress
from deploy.backends.tensorrt_gpu.builder import BuildOptions
from deploy.backends.tensorrt_gpu.compile import compile_network
from deploy.backends.tensorrt_gpu.log import listen
from deploy.backends.tensorrt_gpu.progress import Progress
from deploy.bundle.manifest import INT8
from deploy.errors import UserError
from tests.deploy.backends.tensorrt_gpu.test_builder_models import (
    PRODUCT,
    build_ahead,
    bundle_of,
    bundle_of_all,
    left,
    network_of,
    small_network,
)

trt = pytest.importorskip("tensorrt_rtx")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """A bundle with all precisions; tests add engines, each with options of its own."""
    return bundle_of_all(tmp_path_factory.mktemp("trt") / "bundle")


def refused(bundle: Path, precision="int8", **options) -> str:
    """The error of a build, which must fail with one line and leave no files behind."""
    before = left(bundle)
    with pytest.raises(UserError) as error:
        build_ahead(bundle, precision, **options)
    assert left(bundle) == before
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600
    return str(error.value)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (b"", "model.int8.onnx: is empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "model.int8.onnx: is not an ONNX file"),
        (b"\x08\x0a", "model.int8.onnx: holds no network"),
        (small_network("s8")[:-500], "model.int8.onnx: is damaged or not an ONNX file"),
        (b"\x08\x0a" + b"\xff" * 64, "model.int8.onnx: is damaged or not an ONNX file"),
        (
            small_network("u8"),
            "node act0_QuantizeLinear (QuantizeLinear): Non-zero zero point is not supported.",
        ),
        (
            small_network("int32-bias"),
            "node conv0.bias_DequantizeLinear (DequantizeLinear): conv0.bias_DequantizeLinear: input has type Int32",
        ),
        (network_of("Unique"), "node odd (Unique): the operator is not supported; avoid it"),
        (network_of("Grasp", domain="robot"), "node odd (Grasp): the operator is not supported; avoid it"),
        (
            network_of("Transpose", perm=[0, 3, 1, 2]),
            "node odd (Transpose): odd: first input has type UInt8 but must",
        ),
        (small_network("s8", outputs=("logits",)), "has outputs logits, needs labels, logits"),
    ],
    ids=[
        "empty",
        "foreign",
        "no graph",
        "truncated",
        "corrupt",
        "u8",
        "int32 bias",
        "operator",
        "own operator",
        "uint8 transpose",
        "outputs",
    ],
)
def test_refuses_a_model_in_one_line_that_names_the_cause(tmp_path, model, expected):
    folder = bundle_of(tmp_path / "bundle", model_int8=model)
    assert expected in refused(folder)


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        ("u8", "this is the form of INT8 for CPUs: compile model.int8.onnx"),
        ("int32-bias", "biases must not be"),
    ],
)
def test_refused_int8_form_comes_with_its_remedy(tmp_path, kind, remedy):
    line = refused(bundle_of(tmp_path / "bundle", model_int8=small_network(kind)))
    assert remedy in line
    assert "--precision int8 --redo" in line


def test_refuses_an_image_of_varying_size(tmp_path):
    model = onnx.load_from_string(small_network("s8"))
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "H"
    folder = bundle_of(tmp_path / "bundle", model_int8=model.SerializeToString())
    assert "only the batch of an image may vary" in refused(folder)


def test_too_little_workspace(bundle):
    assert "workspace_mb 1: too little" in refused(bundle, workspace_mb=1, batch=(1, 2, 4))


@pytest.mark.parametrize("batch", [3, 4, 8])
def test_turing_without_fp32_products_and_what_comes_after(bundle, batch):
    """After a failed build for Turing, TensorRT-RTX 1.7.1 mostly builds the next one for Turing too; this one never."""
    line = refused(bundle, targets=("sm75", "sm86"))
    assert f"cannot compile {PRODUCT} for sm75 (FP32 GEMM is not supported); leave sm75 out" in line
    built, _ = build_ahead(bundle, batch=(batch,) * 3)
    assert built.sidecar.layers is not None
    assert built.sidecar.layers.int8_convolutions == 3


def test_int8_that_is_none_is_refused(tmp_path):
    folder = bundle_of(tmp_path / "bundle", model_int8=small_network("s8", product=False))
    assert "target sm75: TensorRT-RTX" in refused(folder, targets=("sm75",))
    assert "computes no convolution in INT8 in an engine for Turing" in refused(
        folder, targets=("sm75", "sm86")
    )
    assert build_ahead(folder)[0].sidecar.layers.int8_convolutions == 3
    folder = bundle_of(tmp_path / "float", model_int8=small_network("fp32"))
    assert (
        "computes none of its 3 convolutions in INT8; make the model again (--precision int8 --redo)"
        in refused(folder)
    )


def test_unexplained_failure_keeps_the_log(bundle, monkeypatch):
    """The user can search the log. Here TensorRT is asked for a library that is not installed."""
    monkeypatch.setattr(
        "deploy.backends.tensorrt_gpu.compile._configure",
        lambda trt, builder, config, *_: config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE),
    )
    before = left(bundle)
    with pytest.raises(
        UserError, match=r"cannot build it \(Unable to load library: libnvinfer_lean"
    ) as error:
        build_ahead(bundle, batch=(5, 5, 5))
    (log,) = sorted(set(left(bundle)) - set(before))
    assert str(error.value).endswith(f"the complete log is in {bundle / 'engines' / log}")
    assert "Unable to load library" in (bundle / "engines" / log).read_text(encoding="utf-8")


def test_missing_precision_names_the_command(tmp_path):
    folder = bundle_of(tmp_path / "bundle")
    line = refused(folder)
    assert "model.int8.onnx: the bundle has no int8 model" in line
    assert line.endswith(f"edgedistill build {folder} --precision int8")


def test_changed_model_is_refused(tmp_path):
    folder = bundle_of(tmp_path / "bundle", model_int8=small_network("s8"))
    (folder / INT8).write_bytes(small_network("u8"))
    assert "checksum mismatch" in refused(folder)
    (folder / INT8).unlink()
    assert "copy the whole folder again" in refused(folder)
    assert "is not a bundle" in refused(tmp_path)


@pytest.mark.parametrize("room", range(5))
def test_full_disk_leaves_nothing(bundle, monkeypatch, room):
    """Wherever the error occurs: at the log, its folder, the engine, its folder, or the sidecar."""
    writes = []

    def full(descriptor):
        writes.append(descriptor)
        if len(writes) > room:
            raise OSError(errno.ENOSPC, "No space left on device")

    before = left(bundle)
    monkeypatch.setattr("deploy.files.atomic.os.fsync", full)
    with pytest.raises(UserError, match="the disk is full"):
        build_ahead(bundle, batch=(6, 6, 6))
    assert len(writes) == room + 1
    assert left(bundle) == before


def test_unwritable_place_is_found_before_the_build(tmp_path, monkeypatch):
    folder = bundle_of(tmp_path / "bundle", model_int8=small_network("s8"))
    monkeypatch.setattr("os.access", lambda *_: False)
    assert "engines: cannot be written; copy the bundle" in refused(folder)
    monkeypatch.undo()
    (folder / "engines").write_text("no folder")
    with pytest.raises(UserError, match="engines: cannot be written"):
        build_ahead(folder)
    assert (folder / "engines").read_text() == "no folder"


def test_cancelled_by_its_callback(bundle):
    """As after Ctrl-C: `step_complete` returns False and TensorRT stops."""
    stop, seen = threading.Event(), []

    class Stopping(Progress):
        def step(self, phase, number):
            seen.append(phase)
            stop.set()

    options = BuildOptions("tensorrt-rtx", targets=("sm86",))
    model = (bundle / INT8).read_bytes()
    with listen(trt) as messages, pytest.raises(KeyboardInterrupt):
        compile_network(trt, model, bundle / INT8, options, ("sm86",), messages, Stopping(), stop)
    assert len(seen) == 1
    assert any("BuildCanceled" in text for _, text in messages)


@pytest.fixture
def ctrl_c():
    """Ctrl-C works as in a terminal; background jobs are started with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_the_build_and_leaves_nothing(bundle, monkeypatch):
    before, pressed = left(bundle), threading.Event()

    def press(self, phase, number):
        if not pressed.is_set():
            pressed.set()
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(trt_progress.Progress, "step", press)
    with pytest.raises(KeyboardInterrupt):
        build_ahead(bundle, batch=(7, 7, 7))
    assert pressed.is_set()
    assert left(bundle) == before
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    monkeypatch.undo()
    assert not build_ahead(bundle, batch=(7, 7, 7))[0].reused


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (("sm87",), "target sm87: TensorRT-RTX .* compiles for sm75, .*sm120.* or current"),
        (("current",), "target current: there is no NVIDIA GPU here; name targets: sm75"),
        (("current", "sm86"), "current cannot be combined"),
        (("",), "target : "),
    ],
)
def test_refuses_targets(bundle, targets, expected):
    with pytest.raises(UserError, match=expected):
        build_ahead(bundle, targets=targets)


def test_targets_are_the_gpu_where_there_is_one():
    resolve = trt_builder.resolve_targets
    assert resolve(trt, BuildOptions("tensorrt-rtx"), True) == ("current",)
    assert resolve(trt, BuildOptions("tensorrt-rtx", targets=("sm120",)), True) == ("sm120",)


def test_model_with_a_fixed_batch(tmp_path):
    folder = bundle_of(tmp_path / "bundle", model_int8=small_network("s8", batch=2))
    assert "has a fixed batch of 2" in refused(folder)
    assert "has a fixed batch of 2" in refused(folder, batch=(1, 2, 2))
    assert build_ahead(folder, batch=(2, 2, 2))[0].sidecar.batch == (2, 2, 2)
