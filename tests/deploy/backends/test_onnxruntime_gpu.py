"""ONNX Runtime on a GPU: the real library's signatures and options, sessions that it computes on the CPU instead."""

import inspect
import shutil
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

import deploy
from deploy.backends import onnxruntime_gpu as ort_gpu
from deploy.backends.onnxruntime_gpu import open_ort_gpu
from deploy.bundle.bundle_files import read_manifest, write_bundle
from deploy.bundle.manifest import FP16, INT8, INT8_CPU, MODEL
from deploy.errors import UserError
from deploy.pinned import open_pinned, pin
from tests.deploy.precisions import make_precisions
from tests.deploy.tiny import make_image

# Read from the provider libraries of onnxruntime-gpu 1.31.1 (`strings`).
OPTIONS = {
    "CUDAExecutionProvider": {
        "device_id",
        "gpu_mem_limit",
        "use_tf32",
        "prefer_nhwc",
        "cudnn_conv_algo_search",
    },
    "TensorrtExecutionProvider": {
        *(
            "device_id",
            "trt_fp16_enable",
            "trt_int8_enable",
            "trt_engine_cache_enable",
            "trt_engine_cache_path",
        ),
        *("trt_timing_cache_enable", "trt_timing_cache_path", "trt_engine_cache_prefix", "trt_dla_enable"),
    },
}


class FakeOnnxRuntime:
    """The package onnxruntime-gpu. `loads` tells whether its CUDA libraries load; `asked` collects sessions."""

    __version__ = "1.31.1"
    SessionOptions, GraphOptimizationLevel = onnxruntime.SessionOptions, onnxruntime.GraphOptimizationLevel
    OrtValue = onnxruntime.OrtValue

    def __init__(self, folder):
        self.__file__ = str(folder / "__init__.py")
        self.loads, self.asked, self.severities = True, [], []

    def get_available_providers(self):
        return ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]

    def set_default_logger_severity(self, severity):
        onnxruntime.set_default_logger_severity(severity)
        self.severities.append(severity)

    def preload_dlls(self):
        print("Failed to load libcublasLt.so")  # as the real one does

    def InferenceSession(self, *arguments, **options):
        inspect.signature(onnxruntime.InferenceSession.__init__).bind(None, *arguments, **options)
        assert options["enable_fallback"] == 0
        *asked, last = options["providers"]
        assert last == "CPUExecutionProvider"
        for name, given in asked:
            assert set(given) <= OPTIONS[name]
            assert all(isinstance(value, str) for value in given.values())
        if "TensorrtExecutionProvider" in dict(asked) and not self.loads:
            raise RuntimeError("Please install TensorRT libraries as mentioned in the GPU requirements page")
        self.asked += asked
        session = onnxruntime.InferenceSession(*arguments, providers=[last])
        names = [name for name, _ in asked] if self.loads else []
        methods = ("get_outputs", "get_inputs", "run", "run_with_iobinding", "io_binding")
        return SimpleNamespace(
            get_providers=lambda: [*names, last], **{name: getattr(session, name) for name in methods}
        )


@pytest.fixture
def bundle(tmp_path):
    """A bundle with every precision; all files hold the same network."""
    folder = make_precisions(tmp_path / "bundle")
    model = (folder / MODEL).read_bytes()
    write_bundle(folder, read_manifest(folder), dict.fromkeys((MODEL, FP16, INT8, INT8_CPU), model))
    return folder


@pytest.fixture
def package(tmp_path, monkeypatch):
    fake = FakeOnnxRuntime(tmp_path / "onnxruntime")
    monkeypatch.setenv("EDGEDISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ort_gpu, "import_onnxruntime", lambda: fake)
    monkeypatch.setattr("deploy.backends.onnxruntime_cpu.import_onnxruntime", lambda: fake)
    return fake


@pytest.mark.parametrize(
    ("backend", "precision", "name"),
    [
        ("onnxruntime-cuda", "auto", "onnxruntime-cuda fp16"),
        ("onnxruntime-cuda", "fp32", "onnxruntime-cuda fp32"),
        ("onnxruntime-tensorrt", "auto", "onnxruntime-tensorrt int8"),
        ("onnxruntime-tensorrt", "fp16", "onnxruntime-tensorrt fp16"),
    ],
)
def test_a_bundle_runs(bundle, package, backend, precision, name, capsys):
    model = deploy.load(bundle, backend, precision=precision)
    expected = deploy.load(bundle, "onnxruntime", precision="fp32")(make_image()).labels
    np.testing.assert_array_equal(model(make_image()).labels, expected)
    assert model.engine.name == name
    assert package.severities == [4, 2]
    assert capsys.readouterr() == ("", "")


def test_tensorrt_may_use_what_the_file_asks_for(bundle, package):
    flags = {}
    for precision in ("fp32", "fp16", "int8"):
        open_ort_gpu(bundle, "onnxruntime-tensorrt", precision)
        options = package.asked[-1][1]
        flags[precision] = options["trt_fp16_enable"], options["trt_int8_enable"]
    assert flags == {"fp32": ("False", "False"), "fp16": ("True", "False"), "int8": ("True", "True")}


def test_another_model_never_runs_what_was_compiled_for_the_first(bundle, package, tmp_path):
    def kept(folder, precision="fp32"):
        open_ort_gpu(folder, "onnxruntime-tensorrt", precision)
        return package.asked[-1][1]["trt_engine_cache_path"]

    first = kept(bundle)
    assert first == kept(shutil.copytree(bundle, tmp_path / "copy"))
    retrained = (bundle / MODEL).read_bytes() + b"\x12\x01x"  # another name of its producer
    write_bundle(bundle, read_manifest(bundle), dict.fromkeys((MODEL, FP16, INT8, INT8_CPU), retrained))
    assert first != kept(bundle)
    package.__version__ = "1.32.0"
    assert len({first, kept(bundle), kept(tmp_path / "copy")}) == 3


def test_int8_is_not_for_the_cuda_provider(bundle, package):
    with pytest.raises(UserError, match="onnxruntime-cuda: computes INT8 models in float; give fp16, or"):
        deploy.load(bundle, "onnxruntime-cuda", precision="int8")


def test_a_precision_that_the_bundle_lacks(tmp_path, package):
    folder = make_precisions(tmp_path / "plain")
    assert open_ort_gpu(folder, "onnxruntime-tensorrt").name == "onnxruntime-tensorrt fp32"
    with pytest.raises(UserError, match=r"has no fp16 model .* edgedistill build .* --precision fp16"):
        open_ort_gpu(folder, "onnxruntime-cuda", "fp16")


@pytest.mark.parametrize("backend", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_a_session_that_runs_on_the_cpu_instead_is_an_error(bundle, package, backend):
    package.loads = False
    with pytest.raises(UserError) as caught:
        deploy.load(bundle, backend)
    message = str(caught.value)
    assert message.startswith(
        f"backend {backend}: cannot use the GPU: a library of CUDA is missing or of another"
    )
    assert "libonnxruntime_providers_shared.so: cannot open shared object file" in message
    assert message.endswith("pip install 'onnxruntime-gpu[cuda,cudnn]'")
    with pytest.warns(
        RuntimeWarning, match="a library of CUDA is missing.*running on the CPU instead, as asked"
    ):
        engine = deploy.load(bundle, backend, threads=1, fallback=True).engine
    assert engine.name in ("onnxruntime fp32", "openvino fp32")


@pytest.mark.parametrize("backend", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_the_package_for_cpus(bundle, backend):
    """The real one, which is installed here."""
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime-gpu is installed here")
    with pytest.raises(
        UserError, match=r"is made for the CPU: pip uninstall .* then pip install onnxruntime-gpu"
    ):
        deploy.load(bundle, backend)


def test_options_of_engines_are_refused(bundle, package):
    with pytest.raises(UserError, match="cuda_graph: is for TensorRT, not for onnxruntime-cuda"):
        deploy.load(bundle, "onnxruntime-cuda", cuda_graph=True)
    deploy.load(bundle, "onnxruntime-cuda", device=1)
    assert package.asked[-1][1] == {"device_id": "1"}


def test_processes_that_pin_it_do_not_run_on_the_cpu(bundle, package):
    opened = open_pinned(pin(bundle, "onnxruntime-cuda", "fp32", None))
    assert opened.model.engine.name == "onnxruntime-cuda fp32"
