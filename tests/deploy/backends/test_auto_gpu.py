"""`auto`: the fastest TensorRT engine that fits this machine comes first, and says why it cannot."""

import json

import numpy as np
import pytest

from deploy.backends.open import open_engine
from deploy.backends.race import Golden
from deploy.bundle.engine_files import record_verdict
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
    monkeypatch.setattr("deploy.backends.tensorrt_gpu.cuda.probe", lambda device=0: None)
    monkeypatch.setattr("deploy.backends.tensorrt_gpu.engine.open_trt", open_trt)
    return asked


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_an_engine_for_the_gpu_comes_first(bundle, machine, gpu, backend):
    add_engine(bundle, backend)
    assert open_engine(bundle).name == f"{backend} fp32"
    assert open_engine(bundle, precision="fp32").name == f"{backend} fp32"
    assert gpu == [(backend, "fp32"), (backend, "fp32")]
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


class TestFastest:
    """The engines of a bundle, measured."""

    @pytest.fixture
    def opened(self, monkeypatch, gpu, bundle):
        """Engines whose speed and labels depend on the precision."""
        milliseconds = {"int8": 4.0, "fp16": 1.0, "fp32": 8.0}
        labels = dict.fromkeys(milliseconds, 0)
        engines = {}

        def open_trt(folder, backend, precision, options):
            engines[precision] = FakeEngine(f"{backend} {precision}", labels[precision])
            return engines[precision]

        monkeypatch.setattr("deploy.backends.tensorrt_gpu.engine.open_trt", open_trt)
        golden = Golden(np.zeros((1, 32, 48, 3), np.uint8), np.zeros((1, 32, 48), np.uint8))
        monkeypatch.setattr("deploy.backends.race.read_golden_of", lambda *_: golden)
        monkeypatch.setattr(
            "deploy.backends.race.time_in_turns",
            lambda engines, *_: {setting: milliseconds[setting.precision] for setting in engines},
        )
        for precision in milliseconds:
            add_engine(bundle, precision=precision)
        engines["labels"] = labels
        return engines

    def test_is_taken_whatever_its_precision(self, bundle, opened):
        assert open_engine(bundle).name == "tensorrt fp16"
        assert (opened["fp16"].closed, opened["int8"].closed, opened["fp32"].closed) == (False, True, True)

    def test_is_remembered_until_an_engine_changes(self, bundle, opened):
        open_engine(bundle)
        (choice,) = json.loads((bundle / "engines" / "auto.json").read_text())["choices"].values()
        assert choice["setting"]["precision"] == "fp16"
        assert choice["milliseconds"] == {"tensorrt int8": 4.0, "tensorrt fp16": 1.0, "tensorrt fp32": 8.0}
        opened.pop("int8")
        assert open_engine(bundle).name == "tensorrt fp16"
        assert "int8" not in opened
        add_engine(bundle, precision="int8", content=b"another engine")
        open_engine(bundle)
        assert "int8" in opened

    def test_must_be_right(self, bundle, opened):
        opened["labels"]["fp16"] = 1
        assert open_engine(bundle).name == "tensorrt int8"

    def test_a_precision_that_is_named_is_not_measured_against_others(self, bundle, opened):
        assert open_engine(bundle, precision="fp32").name == "tensorrt fp32"
        assert "int8" not in opened

    def test_an_engine_that_failed_its_gate_is_none(self, bundle, opened):
        record_verdict(bundle / "engines" / "tensorrt-fp16.engine", False)
        with pytest.warns(RuntimeWarning, match=r"tensorrt-fp16\.engine: failed its accuracy gate"):
            assert open_engine(bundle).name == "tensorrt int8"
        assert "fp16" not in opened

    def test_one_that_cannot_be_opened_is_named_and_nothing_is_remembered(self, bundle, opened, monkeypatch):
        from deploy.backends.tensorrt_gpu import engine

        real = engine.open_trt

        def open_trt(folder, backend, precision, options):
            if precision == "fp16":
                raise UserError("x.engine: is not trusted; run edgedistill trust")
            return real(folder, backend, precision, options)

        monkeypatch.setattr(engine, "open_trt", open_trt)
        with pytest.warns(RuntimeWarning, match="is not trusted"):
            assert open_engine(bundle).name == "tensorrt int8"
        assert not (bundle / "engines" / "auto.json").exists()
