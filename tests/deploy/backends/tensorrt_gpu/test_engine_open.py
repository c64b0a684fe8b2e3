"""Which engine is opened, and why one is refused: in one line with the command that builds a suitable one."""

import platform
import shlex
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

import deploy
from deploy import host
from deploy.backends.gpu_options import MAX_CONTEXTS, GpuOptions
from deploy.backends.onnxruntime_cpu import OrtEngine
from deploy.backends.tensorrt_gpu import engine as trt
from deploy.build import options as build_options
from deploy.bundle.bundle_files import read_manifest
from deploy.bundle.manifest import MODEL
from deploy.errors import UserError
from deploy.tasks.segmentation.model import SegmentationModel
from tests.conftest import ROOT
from tests.deploy.backends.tensorrt_gpu.engines import add_engine
from tests.deploy.tiny import make_image


def test_opened_engine_predicts(bundle, library):
    add_engine(bundle)
    engine = trt.open_trt(bundle, "tensorrt")
    assert engine.name == "tensorrt int8"
    manifest = read_manifest(bundle)
    image = make_image(size=(64, 50))
    on_gpu, on_cpu = (
        SegmentationModel(manifest.input, manifest.classes, one)(image)
        for one in (engine, OrtEngine(bundle / MODEL))
    )
    np.testing.assert_array_equal(on_gpu.labels, on_cpu.labels)


def test_options_of_load_reach_the_engine(bundle, library, monkeypatch):
    asked = []
    monkeypatch.setattr(trt, "open_cuda", lambda provider, device: asked.append(device) or library.cuda)
    add_engine(bundle)
    model = deploy.load(bundle, "tensorrt", device=1, max_contexts=2, cuda_graph=True)
    model(make_image())
    assert asked == [1]
    assert "launch" in library.cuda.calls
    assert model.engine._engine._lanes.most == 2


def test_sixteen_threads_have_four_contexts(bundle, library):
    add_engine(bundle)
    model = deploy.load(bundle, "tensorrt")
    expected = deploy.load(bundle, "onnxruntime")(make_image()).labels
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(model, [make_image()] * 64))
    assert all(np.array_equal(one.labels, expected) for one in results)
    assert 1 <= len(library.contexts) <= MAX_CONTEXTS


def test_an_engine_of_another_gpu_of_the_same_capability_is_named(bundle, library):
    add_engine(bundle, gpu="Another GPU")
    message = r"int8\.engine: its kernels were chosen on Another GPU, this GPU is Fake GPU: edgedistill build"
    with pytest.warns(RuntimeWarning, match=message):
        trt.open_trt(bundle, "tensorrt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        add_engine(bundle, "portable", gpu="Another GPU", options={"hardware_compatible": "same-cc"})
        trt.open_trt(bundle, "tensorrt")


def test_jetsons_of_any_size_have_the_same_gpu_by_name(bundle, library, monkeypatch):
    monkeypatch.setattr(host, "device", lambda: "NVIDIA Jetson Orin Nano")
    library.cuda.device = replace(library.cuda.device, name="Orin", integrated=True)
    add_engine(bundle, gpu="Orin in NVIDIA Jetson AGX Orin")
    with pytest.warns(
        RuntimeWarning, match=r"on Orin in NVIDIA Jetson AGX Orin, this GPU is Orin in .* Nano"
    ):
        trt.open_trt(bundle, "tensorrt")


def test_auto_takes_the_lowest_precision(bundle, library):
    for precision in ("fp32", "fp16"):
        add_engine(bundle, precision, precision=precision)
    assert trt.open_trt(bundle, "tensorrt").name == "tensorrt fp16"
    assert trt.open_trt(bundle, "tensorrt", "fp32").name == "tensorrt fp32"
    add_engine(bundle)
    assert trt.open_trt(bundle, "tensorrt").name == "tensorrt int8"


def test_newest_engine_that_fits(bundle, library):
    add_engine(bundle, "here")
    add_engine(bundle, "there", compute_capability="8.9")  # newer, but from another machine
    assert trt.open_trt(bundle, "tensorrt").name == "tensorrt int8"


@pytest.mark.parametrize(
    "changes",
    [
        {"targets": ("sm80", "sm86"), "gpu": "", "compute_capability": ""},
        {"options": {"hardware_compatible": "ampere+"}, "compute_capability": "8.0"},
        {"options": {"version_compatible": True}, "version": "11.0.0"},
        {"options": {"version_compatible": True}, "version": "11.4.0.9"},
        {"options": {"version_compatible": True}, "version": "10.3.0"},
        {"os": platform.system(), "architecture": platform.machine()},
    ],
)
def test_engines_built_to_be_portable(bundle, library, changes):
    add_engine(bundle, **changes)
    assert trt.open_trt(bundle, "tensorrt", options=GpuOptions(allow_host_code=True))


def test_code_for_the_cpu_is_the_callers_decision(bundle, library):
    add_engine(bundle, options={"version_compatible": True})
    with pytest.raises(UserError, match=r"int8\.engine: carries code for the CPU.*allow_host_code=True"):
        trt.open_trt(bundle, "tensorrt")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"source_sha256": "0" * 64}, "was built from another model.int8.onnx than the bundle's"),
        ({"source": "gone.onnx"}, "was built from another gone.onnx than the bundle's"),
        ({"version": "10.3.0"}, r"was built by tensorrt 10\.3\.0, this machine has 11\.4\.0\.106"),
        ({"version": "9.3.0", "options": {"version_compatible": True}}, r"was built by tensorrt 9\.3\.0"),
        (
            {"os": "Linux", "architecture": "riscv64"},
            r"was built on Linux riscv64, this machine is \w+ \w+; build it again",
        ),
        ({"os": "Haiku"}, r"was built on Haiku , this machine is"),
        ({"version": "11.5.0", "options": {"version_compatible": True}}, r"this machine has 11\.4\.0\.106"),
        (
            {"gpu": "Orin", "compute_capability": "8.7"},
            r"was built for Orin \(compute capability 8\.7\), this machine has Fake GPU \(compute capability 8\.6\)",
        ),
        (
            {"compute_capability": "8.9", "options": {"hardware_compatible": "same-cc"}},
            "was built for Fake GPU",
        ),
        ({"targets": ("sm89", "sm120")}, "was built for sm89, sm120, this machine has Fake GPU"),
    ],
)
def test_refusals(bundle, library, changes, reason):
    add_engine(bundle, **changes)
    with pytest.raises(UserError, match=reason) as refused:
        trt.open_trt(bundle, "tensorrt")
    command = f"build it again: edgedistill build {bundle} --backend tensorrt --precision int8"
    assert f"{command} --batch 1,2,4" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({"batch": (1, 1, 1)}, ""),
        ({"batch": (4, 4, 4)}, " --batch 4"),
        ({"batch": (1, 1, 1), "targets": ("sm89", "sm120")}, " --targets sm89,sm120,sm86"),
        (
            {"batch": (2, 2, 2), "options": {"hardware_compatible": "ampere+", "version_compatible": True}},
            " --batch 2 --hardware-compatible ampere+ --version-compatible",
        ),
        ({"batch": (1, 1, 1), "options": {"dla_core": 0, "version_compatible": False}}, " --dla 0"),
    ],
)
def test_the_command_builds_an_engine_of_the_same_kind(bundle, library, changes, options):
    add_engine(bundle, version="9.0", **changes)
    with pytest.raises(UserError) as refused:
        trt.open_trt(bundle, "tensorrt")
    assert str(refused.value).endswith(f"--precision int8{options}")
    _, _, *command = shlex.split(str(refused.value).partition("build it again: ")[2])
    assert (
        build_options.parse(command, "edgedistill build").backend == "tensorrt"
    )  # the shell reads it as one command


def test_a_changed_engine_is_refused_before_tensorrt_reads_it(bundle, library):
    engine = add_engine(bundle)
    engine.write_bytes(b"an enginE")
    library.module.Runtime = None
    with pytest.raises(UserError, match=r"checksum mismatch\); build it again: edgedistill build"):
        trt.open_trt(bundle, "tensorrt")


def test_damaged_sidecar(bundle, library):
    add_engine(bundle).with_suffix(".json").write_text("{")
    with pytest.raises(UserError, match="is not an engine's sidecar"):
        trt.open_trt(bundle, "tensorrt")


@pytest.mark.parametrize(("precision", "asked"), [("auto", "tensorrt"), ("fp16", "tensorrt fp16")])
def test_no_engine(bundle, library, precision, asked):
    add_engine(bundle, backend="tensorrt-rtx")
    add_engine(bundle, "orphan").with_suffix(".json").unlink()
    built = precision.replace("auto", "int8")
    with pytest.raises(UserError, match=rf"has no engine for {asked}; build one: .* --precision {built}$"):
        trt.open_trt(bundle, "tensorrt", precision)


def test_an_engine_refused_by_tensorrt(bundle, library):
    add_engine(bundle)
    library.loads = False
    with pytest.raises(
        UserError, match=rf"cannot load it .* build it again: edgedistill build {bundle} --backend tensorrt"
    ):
        trt.open_trt(bundle, "tensorrt")


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_without_a_gpu_nothing_crashes_and_tensorrt_is_not_touched(bundle, backend):
    """Without a driver `Runtime(...).deserialize_cuda_engine` would end the process with a segmentation fault."""
    add_engine(bundle, backend=backend)
    code = f"""
import sys
import warnings
from pathlib import Path
from deploy.backends.tensorrt_gpu.engine import open_trt
from deploy.errors import exit_with_one_line

def main():
    try:
        open_trt(Path({str(bundle)!r}), {backend!r})
    finally:
        print([name for name in sys.modules if name.startswith("tensorrt")])

exit_with_one_line(main)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"CUDA_VISIBLE_DEVICES": "", "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "[]\n"), done.stderr
    assert done.stderr.startswith("error: no usable NVIDIA GPU: ")
    assert done.stderr.count("\n") == 1
