"""build_engine.py: compiled engines are verified."""

import json
from types import SimpleNamespace

import pytest

pytest.importorskip("onnx")

from deploy import build_engine
from deploy.backends.tensorrt_gpu import cuda
from deploy.bundle.engine_files import read_sidecar
from deploy.errors import GateFailed, UserError
from deploy.loading import load
from tests.deploy.precisions import add_engine


class FakeGpu:
    name, compute_capability = "Orin", "8.7"
    device = SimpleNamespace(driver="12.6")


class TestCompiled:
    """The engine that was just built is the one that is verified."""

    @pytest.fixture
    def built(self, bundle, monkeypatch):
        """Compiling returns an engine file; opening it gives `Opened` around ONNX Runtime."""
        from deploy.backends.tensorrt_gpu import builder as trt_builder
        from deploy.backends.tensorrt_gpu import engine as trt

        engine = add_engine(bundle, "tensorrt", "fp32", "built")
        add_engine(bundle, "tensorrt", "fp32", "newer-but-another")
        opened = []

        def open_trt(folder, backend, precision, engine, options):
            opened.append(engine)
            real = load(folder, "onnxruntime", precision="fp32").engine
            return Opened(real, engine)

        def build(folder, options, *, core, progress):
            return trt_builder.Built(engine, read_sidecar(engine), False, engine.with_suffix(".log"))

        monkeypatch.setattr(cuda, "probe", lambda device: FakeGpu())
        monkeypatch.setattr(cuda, "find", lambda device: FakeGpu())
        monkeypatch.setattr(trt, "open_trt", open_trt)
        monkeypatch.setattr(trt_builder, "build_engine", build)
        monkeypatch.setattr(trt_builder, "import_tensorrt", lambda _: None)
        monkeypatch.setattr(Opened, "wrong", False)
        return engine, opened

    def compile(self, bundle, *more) -> int:
        return build_engine.main([str(bundle), "--backend", "tensorrt", "--precision", "fp32", *more])

    def test_is_opened_measured_and_judged(self, bundle, built, capsys):
        engine, opened = built
        assert self.compile(bundle) == 0
        assert opened == [engine]
        receipt = json.loads((bundle / "engines" / "tensorrt-fp32.receipt.json").read_text())
        assert receipt["hops"][-1]["bytes"] == engine.stat().st_size
        assert read_sidecar(engine).passed is True

    def test_over_the_budget_it_is_marked(self, bundle, built, capsys, monkeypatch):
        monkeypatch.setattr(Opened, "wrong", True)
        with pytest.raises(GateFailed, match="over the budget: tensorrt fp32; the engine does not"):
            self.compile(bundle)
        assert "FAILED" in capsys.readouterr().out
        assert read_sidecar(built[0]).passed is False

    def test_where_it_goes_wrong_is_looked_for_on_request(self, bundle, built, monkeypatch):
        looked = []
        monkeypatch.setattr(build_engine, "locate_in_engine", lambda *these: looked.append(these[0]))
        (bundle.parent / "data").rename(bundle.parent / "elsewhere")
        assert self.compile(bundle, "--locate") == 0
        assert looked == []  # it is right
        monkeypatch.setattr(Opened, "wrong", True)
        with pytest.raises(GateFailed, match=r"; --locate finds the first tensor that differs$"):
            self.compile(bundle)
        with pytest.raises(GateFailed, match=r"what the bundle was measured with$"):
            self.compile(bundle, "--locate")
        assert looked == [bundle]

    def test_the_gate_has_failed_even_if_nothing_can_be_located(self, bundle, built, monkeypatch, capsys):
        def cannot(*_):
            raise UserError("no such outputs")

        monkeypatch.setattr(build_engine, "locate_in_engine", cannot)
        monkeypatch.setattr(Opened, "wrong", True)
        with pytest.raises(GateFailed, match="over the budget"):
            self.compile(bundle, "--locate")
        assert "--locate: no such outputs" in capsys.readouterr().out

    def test_without_data_it_is_compared_with_the_golden_outputs(self, bundle, built, capsys, monkeypatch):
        (bundle.parent / "data").rename(bundle.parent / "elsewhere")
        assert self.compile(bundle) == 0
        out = capsys.readouterr().out
        assert "accuracy was not measured" in out
        assert "tensorrt fp32: 2 golden inputs, labels agree on 100.000 %" in out
        assert read_sidecar(built[0]).passed is True
        monkeypatch.setattr(Opened, "wrong", True)
        with pytest.raises(GateFailed, match="FAILED"):
            self.compile(bundle)
        assert read_sidecar(built[0]).passed is False

    @pytest.mark.filterwarnings("default")
    def test_a_receipt_that_cannot_be_written_is_a_warning(self, bundle, built, capsys, monkeypatch):
        def refuse(path, _):
            raise UserError(f"{path}: cannot be written (Read-only file system); choose another folder")

        monkeypatch.setattr("deploy.build.steps.write_json", refuse)
        assert self.compile(bundle) == 0
        printed = capsys.readouterr()
        assert "tensorrt fp32" in printed.out
        assert "warning: tensorrt-fp32.receipt.json not written: " in printed.err
        assert printed.err.count("\n") == 1


class Opened:
    """Another engine in the role of TensorRT's; if `wrong`, its labels differ."""

    wrong = False

    def __init__(self, real, file) -> None:
        self.name, self.file, self._real = "tensorrt fp32", file, real

    def run(self, batch):
        outputs = self._real.run(batch)
        return outputs | {"labels": (outputs["labels"] + 1) % 3} if self.wrong else outputs
