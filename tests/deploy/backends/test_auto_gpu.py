"""`auto`: a TensorRT engine that fits this machine comes first, and says why it cannot."""

import pytest

from deploy.backends.open import open_engine
from deploy.errors import UserError
from tests.deploy.precisions import FakeEngine, add_engine


@pytest.fixture
def gpu(monkeypatch):
    """A machine with a GPU, whose TensorRT opens what it is asked for."""
    asked = []

    def open_trt(folder, backend, precision, options):
        asked.append((backend, precision))
        return FakeEngine(f"{backend} fp32")

    monkeypatch.setattr("deploy.backends.tensorrt_gpu.cuda.why_not", lambda device: "")
    monkeypatch.setattr("deploy.backends.tensorrt_gpu.engine.open_trt", open_trt)
    return asked


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_an_engine_for_the_gpu_comes_first(bundle, machine, gpu, backend):
    add_engine(bundle, backend)
    assert open_engine(bundle).name == f"{backend} fp32"
    assert open_engine(bundle, precision="fp32").name == f"{backend} fp32"
    assert gpu == [(backend, "auto"), (backend, "fp32")]
    assert machine.opened == []


def test_an_engine_of_another_precision_is_left_alone(bundle, machine, gpu):
    add_engine(bundle, precision="fp16")
    assert open_engine(bundle, precision="fp32").name == "openvino fp32"
    assert gpu == []


def test_without_engines_no_gpu_is_looked_for(bundle, machine, monkeypatch):
    monkeypatch.setattr("deploy.backends.tensorrt_gpu.cuda.why_not", lambda device: pytest.fail("looked"))
    open_engine(bundle)  # leaves auto.json in engines/
    assert open_engine(bundle).name == "openvino fp32"


def test_without_a_gpu_the_cpu_runs_and_the_reason_is_said_once(bundle, machine, gpu, monkeypatch):
    add_engine(bundle, precision="fp16")
    monkeypatch.setattr("deploy.errors._WARNED", set())
    monkeypatch.setattr("deploy.backends.tensorrt_gpu.cuda.why_not", lambda device: "no driver; install it")
    assert open_engine(bundle, precision="fp32").name == "openvino fp32"  # it has no engine of that precision
    with pytest.warns(RuntimeWarning) as caught:
        assert open_engine(bundle).name == "openvino fp32"
    assert [str(warning.message) for warning in caught] == [
        f"{bundle}: no usable NVIDIA GPU for its engine (no driver; install it); running on the CPU"
        " (backend 'onnxruntime' does so without this warning)"
    ]
    assert open_engine(bundle).name == "openvino fp32"
    assert gpu == []


def test_a_refused_engine_is_passed_over_with_the_reason(bundle, machine, gpu, monkeypatch):
    def refuse(*_, options):
        raise UserError("x.engine: was built for another GPU; build it again")

    add_engine(bundle)
    monkeypatch.setattr("deploy.backends.tensorrt_gpu.engine.open_trt", refuse)
    with pytest.warns(RuntimeWarning, match="another GPU") as caught:
        assert open_engine(bundle).name == "openvino fp32"
    assert len(caught) == 1
    assert caught[0].filename == __file__  # the line that called this package


def test_a_damaged_sidecar_does_not_keep_the_cpu_from_running(bundle, machine, gpu):
    add_engine(bundle).with_suffix(".json").write_text("{")
    with pytest.warns(RuntimeWarning, match=r"tensorrt-fp32\.json: is not an engine's sidecar"):
        assert open_engine(bundle).name == "openvino fp32"
