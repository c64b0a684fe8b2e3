"""The builder with the real TensorRT-RTX, which compiles without a GPU: engines, their reports and reuse."""

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import onnx
import pytest

from deploy.backends.tensorrt_gpu.builder import BuildOptions
from deploy.backends.tensorrt_gpu.compile import compile_network
from deploy.backends.tensorrt_gpu.log import listen
from deploy.backends.tensorrt_gpu.progress import Progress
from deploy.bundle.engine_files import list_engines, read_engine
from deploy.bundle.manifest import MODEL
from tests.conftest import ROOT
from tests.deploy.backends.tensorrt_gpu.test_builder_models import (
    CONVOLUTIONS,
    PRODUCT,
    build_ahead,
    bundle_of,
    bundle_of_all,
    small_network,
)
from tests.deploy.tiny import make_manifest

trt = pytest.importorskip("tensorrt_rtx")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """A bundle with all precisions; tests add engines, each with options of its own."""
    return bundle_of_all(tmp_path_factory.mktemp("trt") / "bundle")


@pytest.mark.parametrize(
    ("precision", "batch", "target", "int8"),
    [
        ("fp32", (1, 1, 1), "sm86", 0),
        ("fp16", (1, 1, 1), "sm89", 0),
        ("int8", (1, 1, 1), "sm86", 3),
        ("int8", (1, 1, 1), "sm89", 3),
        ("int8", (1, 1, 1), "sm120", 3),
        ("int8", (1, 2, 4), "sm86", 3),
        ("int8", (1, 2, 4), "sm120", 3),
        ("fp16", (1, 2, 4), "sm86", 0),
    ],
)
def test_builds_for_other_machines_and_counts_convolutions(bundle, precision, batch, target, int8):
    built, said = build_ahead(bundle, precision, targets=(target,), batch=batch)
    side = built.sidecar
    read_engine(built.path, side)
    assert side.layers is not None
    assert (side.layers.convolutions, side.layers.int8_convolutions) == (3, int8)
    assert set(side.layers.float_layers) == {PRODUCT, *(() if int8 else CONVOLUTIONS)}
    assert (side.backend, side.precision, side.batch, side.targets) == (
        "tensorrt-rtx",
        precision,
        batch,
        (target,),
    )
    assert (side.gpu, side.version, side.key[:8]) == ("", trt.__version__, built.path.stem[-8:])
    source = bundle / side.source
    assert side.source_sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    log = built.log.read_text(encoding="utf-8")
    assert log.startswith("layers ")
    assert "Layers:\nName: " in log
    assert any("convolutions" in line for line in said)
    assert built.path in [path for path, _ in list_engines(bundle, "tensorrt-rtx", precision)]


def test_one_engine_for_several_targets_is_the_default_without_a_gpu(bundle):
    built, _ = build_ahead(bundle, targets=())
    assert built.sidecar.targets == ("sm80", "sm86", "sm89", "sm120", "sm121")
    assert built.sidecar.layers is not None
    assert built.sidecar.layers.int8_convolutions == 3


def test_second_build_uses_the_first(bundle):
    first, _ = build_ahead(bundle, workspace_mb=900)
    os.utime(first.path, (0, 0))
    again, said = build_ahead(bundle, workspace_mb=900)
    assert not first.reused
    assert again.reused
    assert (again.path, again.sidecar) == (first.path, first.sidecar)
    assert "used again" in said[0]
    assert first.path.stat().st_mtime > 0  # the newest engine is the one that is opened


def test_targets_in_another_order_are_the_same_engine(bundle):
    first, _ = build_ahead(bundle, targets=("sm89", "sm86"))
    again, _ = build_ahead(bundle, targets=("sm86", " SM89", "sm86"))
    assert again.reused
    assert again.path == first.path


def test_whatever_decides_the_engine_makes_another(tmp_path):
    folder = bundle_of(tmp_path / "bundle", model_int8=small_network("s8"))
    paths = [
        build_ahead(folder)[0].path,
        build_ahead(folder, targets=("sm89",))[0].path,
        build_ahead(folder, batch=(2, 2, 2))[0].path,
        build_ahead(folder, batch=(1, 1, 2))[0].path,
        build_ahead(folder, workspace_mb=800)[0].path,
        build_ahead(folder, "fp32")[0].path,
    ]
    bundle_of(folder, model_int8=small_network("s8", batch=1))
    paths.append(build_ahead(folder)[0].path)
    assert len({path.stem[-8:] for path in paths}) == len(paths)


@pytest.mark.parametrize("damage", ["engine", "sidecar", "no sidecar", "another key"])
def test_damaged_engine_is_built_again(tmp_path, damage):
    folder = bundle_of(tmp_path / "bundle", model_int8=small_network("s8"))
    first, _ = build_ahead(folder)
    if damage == "engine":
        first.path.write_bytes(first.path.read_bytes()[:-1] + b"?")
    elif damage == "sidecar":
        first.path.with_suffix(".json").write_text("{")
    elif damage == "no sidecar":
        first.path.with_suffix(".json").unlink()
    else:  # the name contains only a part of it
        other = msgspec.structs.replace(first.sidecar, key=first.sidecar.key[:8] + "0" * 56)
        first.path.with_suffix(".json").write_bytes(msgspec.json.encode(other))
    again, said = build_ahead(folder)
    assert not again.reused
    assert again.path == first.path
    read_engine(again.path, again.sidecar)
    assert ("building it again" in said[0]) == (damage in ("engine", "sidecar"))


@pytest.mark.slow
@pytest.mark.parametrize("batch", [(1, 1, 1), (1, 1, 4)])
def test_exported_network_compiles_and_every_convolution_is_found(tmp_path, batch):
    """A whole student with its folded pyramid, as `distill` exports it."""
    torch = pytest.importorskip("torch")
    from distill.export.parity import device_form
    from distill.export.to_onnx import export_onnx
    from student.zoo import build_network

    torch.manual_seed(0)
    network = build_network("pspnet/resnet18", 3, 3, output_stride=16, head_channels=32)
    spec = make_manifest().input
    spec = msgspec.structs.replace(spec, height=96, width=144)
    model = export_onnx(device_form(network, spec, fold=True), 20)
    nodes = [node.op_type for node in onnx.load_from_string(model).graph.node]
    built, _ = build_ahead(bundle_of(tmp_path / "bundle", model=model), "fp32", batch=batch)
    assert built.sidecar.layers is not None
    assert built.sidecar.layers.convolutions == nodes.count("Conv") > 20
    assert len(built.sidecar.layers.float_layers) == nodes.count("Conv") + nodes.count("MatMul")


def compiled(model: bytes, **options):
    """The model compiled without a bundle."""
    with listen(trt, lambda _: True) as messages:
        return compile_network(
            trt,
            model,
            Path("small.onnx"),
            BuildOptions("tensorrt-rtx", **options),
            ("sm86",),
            messages,
            Progress(),
            threading.Event(),
        )


def test_compiles_to_the_same_bytes(tmp_path):
    """With a fixed batch. With a range, TensorRT-RTX 1.7.1 numbers some internal values in no fixed order."""
    model = small_network("s8")
    first, second = compiled(model), compiled(model)
    assert hashlib.sha256(first.plan).hexdigest() == hashlib.sha256(second.plan).hexdigest()
    assert first.layers is not None
    assert first.layers == second.layers


def test_range_of_batches_compiles_to_the_same_layers():
    reports = [compiled(small_network("s8"), batch=(1, 2, 4)).layers for _ in range(2)]
    kinds = [[(layer.kind, layer.onnx, layer.inputs) for layer in report.layers] for report in reports]
    assert kinds[0] == kinds[1]


@pytest.mark.parametrize("batch", [(1, 1, 1), (4, 4, 4), (1, 2, 4)])
def test_batch_is_what_was_asked_for(bundle, batch):
    log = build_ahead(bundle, batch=batch)[0].log.read_text(encoding="utf-8")
    shape = "-1" if batch[0] < batch[2] else str(batch[0])
    assert f"Name: image, IOMode: Input, DataType: UInt8, Dimensions: [{shape},32,48,3]" in log
    sizes = [
        f"{side}Shape: [{size},32,48,3]" for side, size in zip(("Min", "Opt", "Max"), batch, strict=True)
    ]
    assert ", ".join(sizes) in log


SCRIPT = """
import sys
from pathlib import Path
from deploy.backends.tensorrt_gpu.builder import BuildOptions, build_engine
from deploy.errors import exit_with_one_line
options = BuildOptions(sys.argv[2], "int8", batch=(1, 1, 3))
exit_with_one_line(lambda: print(build_engine(Path(sys.argv[1]), options).sidecar.layers.int8_convolutions))
"""


@pytest.mark.parametrize(
    ("backend", "code", "last"),
    [("tensorrt-rtx", 0, "3"), ("tensorrt", 2, "error: backend tensorrt: no usable NVIDIA GPU (")],
)
def test_a_fresh_process_without_driver_does_not_crash(bundle, backend, code, last):
    """Includes the real search for a GPU, which is hidden from the process if this machine has one."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "-c", SCRIPT, str(bundle), backend]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == code, done.stderr
    assert (done.stdout + done.stderr).splitlines()[-1].startswith(last)
    assert "Traceback" not in done.stderr


def test_sidecar_is_plain_json(bundle):
    built, _ = build_ahead(bundle)
    raw = msgspec.json.decode(built.path.with_suffix(".json").read_bytes())
    assert raw["options"] == {
        "allow_gpu_fallback": True,
        "dla_core": None,
        "hardware_compatible": "",
        "optimization_level": None,
        "version_compatible": False,
        "workspace_mb": None,
    }
    assert raw["source"] != MODEL
