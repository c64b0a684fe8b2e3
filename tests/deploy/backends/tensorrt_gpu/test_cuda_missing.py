"""Where CUDA finds no GPU, the reason is said, and what to do about it."""

import os
import subprocess
import sys
from unittest.mock import Mock

import pytest

import deploy
from deploy.backends.tensorrt_gpu import cuda
from deploy.backends.tensorrt_gpu.builder import BuildOptions, build_engine
from deploy.backends.tensorrt_gpu.cuda import CudaBindings
from deploy.backends.tensorrt_gpu.cuda_interface import CudaError, version_name
from deploy.backends.tensorrt_gpu.signs import Signs
from deploy.errors import UserError
from tests.conftest import ROOT
from tests.deploy.precisions import add_engine


@pytest.fixture
def signs(monkeypatch):
    """What the system shows of NVIDIA; a test may change it."""
    shown = {}
    monkeypatch.setattr(cuda, "look", lambda: Signs(**shown))
    return shown


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"supports": 0}, "there is no NVIDIA driver"),
        ({"_cudaGetDeviceCount": lambda: [0]}, "the driver sees no GPU"),
    ],
)
def test_no_gpu(runtime, signs, monkeypatch, state, reason):
    for name, value in state.items():
        monkeypatch.setattr(runtime, name, value)
    monkeypatch.setattr(cuda, "PROVIDERS", {"cuda-bindings": CudaBindings})
    assert cuda.probe() is None
    assert cuda.why_not() == f"cuda-bindings: {reason}"
    with pytest.raises(UserError, match=f"no usable NVIDIA GPU: cuda-bindings: {reason}"):
        cuda.open_cuda()
    signs["container"] = True
    assert cuda.why_not().startswith(
        f"cuda-bindings: {reason}; a container sees a GPU only if it is started with"
    )


@pytest.mark.parametrize(
    ("driver", "made_for", "pin"), [(12060, 13050, "cuda-bindings<13"), (11040, 12090, "cuda-bindings<12")]
)
def test_a_provider_that_is_newer_than_the_driver_names_both_and_the_pin(
    runtime, signs, monkeypatch, driver, made_for, pin
):
    """The real runtime refuses this pair: JetPack 6 and CUDA 12 drivers with the newest cuda-bindings."""
    runtime.supports, runtime.made_for, signs["l4t"] = driver, made_for, "36.4.3"
    monkeypatch.setattr(cuda, "PROVIDERS", {"cuda-bindings": CudaBindings})
    old, new = version_name(driver), version_name(made_for)
    said = (
        f"cuda-bindings: is made for CUDA {new}, the GPU's driver supports {old} at most: pip install '{pin}'"
    )
    assert cuda.why_not().startswith(said)
    assert "doctor" not in cuda.why_not()  # the pin is what helps
    with pytest.raises(UserError, match="no usable NVIDIA GPU: cuda-bindings: is made for CUDA"):
        cuda.open_cuda("cuda-bindings")


def test_minor_versions_of_cuda_do_not_matter(runtime):
    runtime.supports, runtime.made_for = 13000, 13050
    assert (cuda.probe() or pytest.fail("no GPU")).driver == "13.0"


def test_a_refusal_within_a_major_names_a_minor_version(runtime):
    runtime.fail = {"cudaGetDeviceCount": runtime.cudaError_t.cudaErrorInsufficientDriver}
    with pytest.raises(CudaError, match=r"made for CUDA 12\.9, .* 12\.6 at most: pip .*cuda-bindings<12\.7'"):
        CudaBindings()


def test_either_provider_suffices(runtime, driver, monkeypatch):
    assert (cuda.probe() or pytest.fail("no GPU")).provider == "cuda-bindings"
    monkeypatch.setattr(cuda, "import_module", Mock(side_effect=ModuleNotFoundError))
    assert (cuda.probe() or pytest.fail("no GPU")).provider == "pycuda"
    modules = {"cuda.bindings.runtime": runtime, "cuda.bindings.driver": runtime.driver}
    monkeypatch.setattr(cuda, "import_module", lambda name: modules[name])
    assert (cuda.probe() or pytest.fail("no GPU")).provider == "cuda-bindings"
    assert cuda.why_not() == ""
    assert isinstance(cuda.open_cuda("cuda-bindings"), CudaBindings)


def test_unknown_provider():
    with pytest.raises(
        UserError, match="unknown CUDA provider 'cupy'; choose one of auto, cuda-bindings, pycuda"
    ):
        cuda.open_cuda("cupy")


def test_nothing_installed(signs, monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    monkeypatch.setitem(sys.modules, "pycuda", None)
    assert cuda.probe() is None
    signs["driver"] = "550.54.15"
    missing = "cuda-bindings and pycuda not installed: pip install 'edgedistill[cuda12]'"
    assert cuda.why_not() == missing
    with pytest.raises(UserError, match="pycuda not installed"):
        cuda.open_cuda("pycuda")


def test_real_bindings_without_a_gpu():
    pytest.importorskip("cuda.bindings.runtime")
    code = "from deploy.backends.tensorrt_gpu.cuda import probe, why_not; print(probe()); print(why_not())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    nothing, reason = done.stdout.splitlines()
    assert nothing == "None"
    assert reason.startswith("cuda-bindings: ")


def test_what_fits_no_driver_is_said_by_load_build_and_the_automatic_choice(bundle, runtime, signs):
    runtime.supports, runtime.made_for, signs["l4t"] = 12060, 13050, "36.4.3"
    add_engine(bundle)
    pin = r"is made for CUDA 13\.5, .* supports 12\.6 at most: pip install 'cuda-bindings<13'"
    with pytest.raises(UserError, match=pin):
        deploy.load(bundle, "tensorrt")
    with pytest.raises(UserError, match=pin):
        build_engine(bundle, BuildOptions("tensorrt", "fp32"))
    with pytest.warns(RuntimeWarning, match=pin):
        deploy.load(bundle, threads=1)
