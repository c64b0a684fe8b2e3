"""checks.py: what crashes, hangs or does not fit is said, with the command that mends it."""

import pytest

from deploy.backends.tensorrt_gpu.signs import Signs
from deploy.doctor import checks
from deploy.doctor.checks import Part, attempt, examine
from tests.conftest import ROOT
from tests.deploy.backends.tensorrt_gpu.gpu_fakes import GPU


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("print('noise'); print(6 * 7)", (True, "42")),
        ("import none_of_this_name", (False, "ModuleNotFoundError: No module named 'none_of_this_name'")),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", (False, "crashes this Python (SIGILL)")),
        ("import sys; sys.exit(3)", (False, "exit code 3")),
    ],
)
def test_attempts(code, told):
    assert attempt(code) == told


def test_an_attempt_that_hangs(monkeypatch):
    monkeypatch.setattr(checks, "SECONDS", 1)
    assert attempt("import time; time.sleep(60)") == (False, "has not answered within 1 s")


@pytest.fixture
def machine(monkeypatch):
    """A machine as a test describes it: modules that are installed, what attempts answer, its GPU."""
    state = {"installed": set(), "gpus": ([], "cuda-bindings: there is no NVIDIA driver"), "signs": Signs()}
    monkeypatch.setattr(checks, "find_spec", lambda name: name if name in state["installed"] else None)
    monkeypatch.setattr(checks, "attempt", lambda code, arguments=(): state.get("answer", (True, "1.2.3")))
    monkeypatch.setattr(checks, "_gpus", lambda: state["gpus"])
    monkeypatch.setattr(checks, "look", lambda: state["signs"])
    return state


def backends() -> dict[str, Part]:
    return {part.name: part for part in examine().backends}


def test_nothing_is_installed(machine):
    found = backends()
    assert not any(part.works for part in found.values())
    assert found["onnxruntime"].remedy == "pip install onnxruntime"
    for name in ("tensorrt", "onnxruntime-cuda", "onnxruntime-tensorrt"):  # not missed without a GPU
        assert found[name].detail.endswith("needs an NVIDIA GPU, none seen")
        assert found[name].remedy == ""
    assert "[rtx-cu13]" in found["tensorrt-rtx"].remedy
    packages = {part.name: part.remedy for part in examine().packages}
    assert packages["rasterio"] == "pip install 'edgedistill[geo]'"
    assert packages["uvicorn"] == "pip install 'edgedistill[serve]'"
    assert packages["pandas"] == "pip install 'pandas'"


def test_every_extra_is_looked_at():
    """Those of backends have a check of their own."""
    tomllib = pytest.importorskip("tomllib", reason="from Python 3.11 on")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {package.partition("[")[2].rstrip("]") for package, _ in checks.PACKAGES.values()}
    backends = ("cuda", "tensorrt-", "rtx-", "openvino", "pycuda")
    assert {name for name in extras if not name.startswith((*backends, "dev"))} == named - {""}


def test_a_jetson_without_its_tensorrt(machine):
    machine["signs"] = Signs(l4t="36.4.3", nodes=("/dev/nvgpu",))
    assert "--system-site-packages" in backends()["tensorrt"].remedy


def test_a_gpu(machine, monkeypatch):
    machine.update(installed={"tensorrt", "tensorrt_rtx"}, gpus=([vars(GPU)], ""))
    monkeypatch.setattr(
        "deploy.backends.tensorrt_gpu.packages.version", lambda name: {"tensorrt-cu14": "12.0"}[name]
    )
    monkeypatch.setattr("deploy.backends.tensorrt_gpu.packages.PackageNotFoundError", KeyError)
    found = backends()
    assert found["tensorrt-rtx"] == Part("tensorrt-rtx", True, "1.2.3")
    assert not found["tensorrt"].works
    assert (
        "tensorrt-cu14 12.0 is made for CUDA 14, the GPU's driver supports 13.0" in found["tensorrt"].detail
    )


def test_backends_of_onnx_runtime_on_a_gpu(machine):
    machine.update(gpus=([vars(GPU)], ""), installed={"onnxruntime"})
    found = backends()["onnxruntime-cuda"]
    assert (found.works, found.detail) == (False, "needs onnxruntime-gpu; here is 1.2.3")
    assert found.remedy.endswith("then pip install onnxruntime-gpu")
    machine["answer"] = (True, "1.2.3 CUDAExecutionProvider, CPUExecutionProvider")
    assert backends()["onnxruntime-cuda"].works
    assert not backends()["onnxruntime-tensorrt"].works


def test_a_gpu_that_cuda_cannot_use(machine):
    machine.update(signs=Signs(gpu=True), installed={"onnxruntime"})
    detail = backends()["onnxruntime-cuda"].detail
    assert detail == "no usable NVIDIA GPU (cuda-bindings: there is no NVIDIA driver)"


def test_without_a_gpu_rtx_compiles_and_tensorrt_says_why_not(machine):
    machine["installed"] = {"tensorrt", "tensorrt_rtx"}
    found = backends()
    assert found["tensorrt-rtx"].works
    assert "compiles for other machines, runs nothing here" in found["tensorrt-rtx"].detail
    assert not found["tensorrt"].works
    assert (
        "cannot be used: no usable NVIDIA GPU (cuda-bindings: there is no NVIDIA driver)"
        in found["tensorrt"].detail
    )


def test_two_packages_of_onnx_runtime(machine, monkeypatch):
    machine["installed"] = {"onnxruntime"}
    monkeypatch.setattr(checks, "version", lambda name: "1.32.0")
    found = backends()["onnxruntime"]
    assert not found.works
    assert "onnxruntime and onnxruntime-gpu are both installed" in found.detail
    assert found.remedy.startswith(
        "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install one of them"
    )


def test_what_cannot_be_imported(machine):
    machine.update(installed={"openvino", "tensorrt"}, answer=(False, "crashes this Python (SIGILL)"))
    found = backends()
    assert found["openvino"] == Part(
        "openvino", False, "crashes this Python (SIGILL)", "pip install --force-reinstall openvino"
    )
    assert not found["tensorrt"].works
