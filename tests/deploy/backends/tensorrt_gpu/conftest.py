"""Machines with fakes: TensorRT and a GPU with a bundle of every precision, or the libraries below CUDA's providers."""

import pytest

from deploy.backends.tensorrt_gpu import cuda, pycuda_provider
from deploy.backends.tensorrt_gpu import engine as trt
from deploy.bundle.bundle_files import write_bundle
from deploy.bundle.manifest import MODEL
from tests.deploy.backends.tensorrt_gpu.cuda_fakes import FakeDriver, FakeRuntime
from tests.deploy.backends.tensorrt_gpu.engines import SOURCES
from tests.deploy.backends.tensorrt_gpu.pycuda_fakes import FakePyCuda
from tests.deploy.backends.tensorrt_gpu.trt_fakes import FakeTensorRT
from tests.deploy.backends.tensorrt_gpu.trt_fakes import library as library_like
from tests.deploy.tiny import make_bundle


@pytest.fixture
def bundle(tmp_path):
    """A bundle with a file for each precision; all hold the same network."""
    folder = tmp_path / "bundle"
    manifest = make_bundle(folder)
    model = (folder / MODEL).read_bytes()
    write_bundle(folder, manifest, dict.fromkeys(SOURCES.values(), model))
    return folder


@pytest.fixture
def library(bundle, monkeypatch):
    """TensorRT and a GPU, as far as the code can tell."""
    fake = FakeTensorRT(library_like("tensorrt 11.4"), bundle / MODEL)
    monkeypatch.setattr(trt, "open_cuda", lambda provider, device: fake.cuda)
    monkeypatch.setattr(trt, "import_tensorrt", lambda backend: fake.module)
    return fake


@pytest.fixture
def runtime(monkeypatch):
    fake = FakeRuntime(pytest.importorskip("cuda.bindings.runtime"))
    fake.driver = FakeDriver(pytest.importorskip("cuda.bindings.driver"))
    modules = {"cuda.bindings.runtime": fake, "cuda.bindings.driver": fake.driver}
    monkeypatch.setattr(cuda, "import_module", lambda name: modules[name])
    return fake


@pytest.fixture
def driver(monkeypatch):
    fake = FakePyCuda()
    monkeypatch.setattr(pycuda_provider, "import_module", lambda name: {"pycuda.driver": fake}[name])
    return fake


@pytest.fixture(params=["cuda-bindings", "pycuda"])
def provider(request):
    """Either provider, and the fake below it."""
    fake = request.getfixturevalue("runtime" if request.param == "cuda-bindings" else "driver")
    return cuda.PROVIDERS[request.param](0), fake
