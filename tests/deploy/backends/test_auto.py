"""`auto`: a suitable TensorRT engine, otherwise the faster CPU backend, measured once and remembered."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import deploy
from deploy.backends import auto as choice
from deploy.backends.open import open_engine
from deploy.bundle.bundle_files import extend_bundle, read_golden
from deploy.bundle.manifest import GOLDEN
from deploy.errors import UserError
from tests.conftest import ROOT
from tests.deploy.precisions import FakeEngine, add_engine, make_precisions
from tests.deploy.tiny import make_bundle, make_image


@pytest.fixture
def bundle(tmp_path):
    make_bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


class Machine:
    """Two CPU backends of known speed; `opened` lists those opened, `fast` is the faster one."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.fast = "openvino"
        self.broken: set[str] = set()
        self.labels: dict[str, int] = {}

    def open(self, folder: Path, backend: str, threads: int | None, precision: str) -> FakeEngine:
        self.opened.append(backend)
        if backend in self.broken:
            raise UserError(f"{backend}: is broken")
        wait = 0.0005 if backend == self.fast else 0.003
        return FakeEngine(f"{backend} {precision}", self.labels.get(backend, 0), wait)


@pytest.fixture
def machine(monkeypatch):
    machine = Machine()
    monkeypatch.setattr(choice, "open_cpu", machine.open)
    monkeypatch.setattr(choice, "find_spec", lambda name: name)
    monkeypatch.setattr(choice, "SECONDS", 0.1)
    return machine


def remembered(bundle):
    return json.loads((bundle / "engines" / "auto.json").read_text())["choices"]


@pytest.mark.parametrize("fast", ["onnxruntime", "openvino"])
def test_the_faster_is_taken_and_remembered(bundle, machine, fast):
    machine.fast = fast
    assert open_engine(bundle).name == f"{fast} fp32"
    assert machine.opened == ["onnxruntime", "openvino"]
    assert open_engine(bundle).name == f"{fast} fp32"
    assert machine.opened[2:] == [fast]  # not measured again
    ((key, entry),) = remembered(bundle).items()
    assert entry["backend"] == fast
    assert set(entry["milliseconds"]) == {"onnxruntime", "openvino"}
    assert entry["milliseconds"][fast] == min(entry["milliseconds"].values())
    assert "fp32, threads auto" in key


def test_each_setting_is_measured_for_itself(tmp_path, machine):
    bundle = make_precisions(tmp_path / "bundle", "int8")
    for precision, threads in (("fp32", None), ("int8", None), ("int8", 1), ("auto", 1)):
        open_engine(bundle, "auto", threads, precision)
    assert len(remembered(bundle)) == 3  # auto is int8
    assert len(machine.opened) == 7


@pytest.mark.parametrize("change", ["model", "version", "cpu_name", "cpu_flags", "quota", "backends"])
def test_whatever_the_speed_depends_on_makes_it_measure_again(bundle, machine, monkeypatch, change):
    open_engine(bundle)
    machine.opened.clear()
    machine.fast = "onnxruntime"
    if change == "model":
        extend_bundle(bundle, {"notes.txt": b"another manifest"})
    elif change == "version":
        monkeypatch.setattr("importlib.metadata.version", lambda name: "99")
    elif change in ("cpu_name", "cpu_flags"):
        monkeypatch.setattr(choice.host, change, lambda: "another")
    elif change == "quota":
        monkeypatch.setattr(choice.host, "cpu_quota", lambda: 0.5)
    else:
        monkeypatch.setattr(choice, "CPU", ("openvino", "onnxruntime"))
    assert open_engine(bundle).name == "onnxruntime fp32"
    assert len(machine.opened) == 2
    assert len(remembered(bundle)) == (1 if change == "model" else 2)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff\xfe", b'{"bundle": 3}', b'{"bundle": "x", "choices": {"k": {"backend": []}}}'],
)
def test_a_damaged_memory_is_written_anew(bundle, machine, content):
    path = bundle / "engines" / "auto.json"
    path.parent.mkdir()
    path.write_bytes(content)
    assert open_engine(bundle).name == "openvino fp32"
    assert len(remembered(bundle)) == 1


def test_a_remembered_backend_that_is_unknown_or_gone_is_chosen_again(bundle, machine, monkeypatch):
    open_engine(bundle)
    path = bundle / "engines" / "auto.json"
    path.write_text(path.read_text().replace('"backend": "openvino"', '"backend": "abacus"'))
    assert open_engine(bundle).name == "openvino fp32"
    machine.opened.clear()
    monkeypatch.setattr(choice, "find_spec", lambda name: name if name == "onnxruntime" else None)
    assert open_engine(bundle).name == "onnxruntime fp32"
    assert machine.opened == ["onnxruntime"]


def test_where_it_cannot_be_remembered_it_is_chosen_all_the_same(bundle, machine, monkeypatch):
    (bundle / "engines").write_text("a file where the folder should be")
    assert open_engine(bundle).name == "openvino fp32"
    (bundle / "engines").unlink()

    def read_only(path, _):
        raise UserError(f"{path}: cannot be written (Read-only file system); choose another folder")

    monkeypatch.setattr(choice, "write_json", read_only)
    assert open_engine(bundle).name == "openvino fp32"


def test_one_backend_needs_no_measuring(bundle, machine, monkeypatch):
    monkeypatch.setattr(choice, "find_spec", lambda name: name if name == "openvino" else None)
    monkeypatch.setattr(choice, "measure", lambda *_: pytest.fail("measured"))
    assert open_engine(bundle).name == "openvino fp32"
    assert not (bundle / "engines").exists()


def test_no_backend_at_all_says_what_to_install(bundle, monkeypatch):
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install onnxruntime"):
        open_engine(bundle)


def test_a_backend_that_fails_is_passed_over_with_a_warning(bundle, machine):
    machine.broken = {"openvino"}
    with pytest.warns(RuntimeWarning, match="openvino: is broken; running without it"):
        assert open_engine(bundle).name == "onnxruntime fp32"
    assert not (bundle / "engines").exists()  # it may be repaired
    machine.broken = {"openvino", "onnxruntime"}
    with pytest.raises(UserError, match="onnxruntime: is broken"):
        open_engine(bundle)


def test_a_remembered_backend_that_fails_is_replaced(bundle, machine):
    open_engine(bundle)
    machine.broken = {"openvino"}
    with pytest.warns(RuntimeWarning, match="is broken"):
        assert open_engine(bundle).name == "onnxruntime fp32"


def test_a_fast_backend_that_is_wrong_is_not_taken(bundle, machine):
    """For example INT8 on CPUs whose 16-bit sums overflow."""
    golden = read_golden(bundle)["labels"][:1]
    most, least = np.bincount(golden.ravel(), minlength=3).argsort()[[-1, 0]]
    machine.labels = {"openvino": int(least), "onnxruntime": int(most)}
    assert open_engine(bundle).name == "onnxruntime fp32"
    (entry,) = remembered(bundle).values()
    assert entry["milliseconds"]["openvino"] < entry["milliseconds"]["onnxruntime"]
    assert entry["agreement"]["openvino"] < entry["agreement"]["onnxruntime"]


@pytest.mark.parametrize("golden", [None, b"PK, but not for long", "other size"])
def test_without_a_golden_file_zeros_will_do(bundle, machine, golden):
    if golden is None:
        (bundle / GOLDEN).unlink()
    elif golden == "other size":
        np.savez(bundle / GOLDEN, inputs=np.zeros((2, 8, 8, 3), np.uint8), labels=np.zeros((2, 8, 8)))
    else:
        (bundle / GOLDEN).write_bytes(golden)
    assert deploy.load(bundle, verify=False).engine.name == "openvino fp32"
    (entry,) = remembered(bundle).values()
    assert set(entry["agreement"].values()) == {1.0}


def test_measuring_takes_about_the_time_it_may(monkeypatch):
    """With a clock that advances only while an engine runs."""
    now = 0.0

    class Engine(FakeEngine):
        def run(self, batch):
            nonlocal now
            now += self._wait
            self.runs += 1
            return {"labels": np.zeros(1)}

    def runs(seconds):
        engines = {name: Engine(wait=seconds) for name in ("a", "b")}
        found = choice.measure(engines, np.zeros((1, 32, 48, 3), np.uint8), None)
        assert found.milliseconds == pytest.approx(dict.fromkeys(engines, 1000 * seconds))
        return [engine.runs for engine in engines.values()]

    monkeypatch.setattr(choice.time, "perf_counter", lambda: now)
    assert runs(1.1 * choice.SECONDS) == [3, 3]  # to warm up, to wake up, and timed once
    assert runs(choice.SECONDS / 1000) == [1 + choice.BLOCKS * (1 + choice.BLOCK)] * 2
    assert sum(runs(choice.SECONDS / 20)) <= 20 + 2 + 4  # at most one more block


TWO = """
import sys, warnings
warnings.simplefilter("error")
import deploy, numpy
for _ in range(3):
    model = deploy.load(sys.argv[1], threads=1)
    assert model(numpy.zeros((32, 48, 3), numpy.uint8)).labels.shape == (32, 48)
"""


def test_processes_may_choose_at_once(bundle):
    pytest.importorskip("openvino")
    command = [sys.executable, "-c", TWO, str(bundle)]
    running = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) for _ in range(3)]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert (process.returncode, errors) == (0, b"")
    (entry,) = remembered(bundle).values()
    assert entry["backend"] in ("onnxruntime", "openvino")
    assert [path.name for path in (bundle / "engines").iterdir()] == ["auto.json"]


def test_the_real_backends(bundle):
    pytest.importorskip("openvino")
    model = deploy.load(bundle, threads=1)
    (entry,) = remembered(bundle).values()
    assert model.engine.name == f"{entry['backend']} fp32"
    assert set(entry["agreement"].values()) == {1.0}
    assert model(make_image()).labels.shape == (32, 48)


@pytest.fixture
def gpu(monkeypatch):
    """A machine with a GPU, whose TensorRT opens what it is asked for."""
    asked = []

    def open_trt(folder, backend, precision):
        asked.append((backend, precision))
        return FakeEngine(f"{backend} fp32")

    monkeypatch.setattr("deploy.backends.tensorrt_gpu.cuda.probe", lambda: "a GPU")
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
    monkeypatch.setattr("deploy.backends.tensorrt_gpu.cuda.probe", lambda: pytest.fail("probed"))
    open_engine(bundle)  # leaves auto.json in engines/
    assert open_engine(bundle).name == "openvino fp32"


def test_without_a_gpu_engines_are_left_alone(bundle, machine, gpu, monkeypatch):
    add_engine(bundle)
    monkeypatch.setattr("deploy.backends.tensorrt_gpu.cuda.probe", lambda: None)
    assert open_engine(bundle).name == "openvino fp32"
    assert gpu == []


def test_a_refused_engine_is_passed_over_with_the_reason(bundle, machine, gpu, monkeypatch):
    def refuse(*_):
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
