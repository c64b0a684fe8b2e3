"""`auto`: a suitable TensorRT engine, otherwise the fastest way to run on the CPU that is right, remembered."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import deploy
from deploy import host
from deploy.backends import auto
from deploy.backends.open import open_engine
from deploy.backends.setting import Setting, variants
from deploy.bundle.bundle_files import extend_bundle, read_golden
from deploy.bundle.manifest import GOLDEN, golden_metric
from deploy.errors import UserError
from tests.conftest import ROOT
from tests.deploy.precisions import FakeEngine, add_engine, make_precisions
from tests.deploy.tiny import make_bundle, make_image


@pytest.fixture
def bundle(tmp_path):
    make_bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


class Machine:
    """A CPU whose backends take `ms`, by "backend precision" or by setting in words; `opened` lists what was opened."""

    def __init__(self) -> None:
        self.opened: list[Setting] = []
        self.ms: dict[str, float] = {"openvino fp32": 1.0}
        self.broken: set[str] = set()
        self.labels: dict[str, int] = {}
        self.measured: list[str] = []

    def open(self, folder: Path, setting: Setting, blob: bytes | None = None) -> FakeEngine:
        self.opened.append(setting)
        if setting.backend in self.broken:
            raise UserError(f"{setting.backend}: is broken")
        return FakeEngine(setting.name, self.labels.get(setting.name, 0))

    def time(
        self, engines: dict[Setting, FakeEngine], batch: np.ndarray, seconds: float
    ) -> dict[Setting, float]:
        self.measured += map(str, engines)
        return {one: self.ms.get(str(one), self.ms.get(one.name, 3.0)) for one in engines}

    @property
    def names(self) -> list[str]:
        """What was opened since it was asked last."""
        names = [str(setting) for setting in self.opened]
        self.opened.clear()
        return names


@pytest.fixture
def machine(monkeypatch):
    machine = Machine()
    monkeypatch.setattr(auto, "open_cpu", machine.open)
    monkeypatch.setattr("deploy.backends.open.open_cpu", machine.open)
    monkeypatch.setattr(auto, "find_spec", lambda name: name)
    monkeypatch.setattr(auto.race, "time_in_turns", machine.time)
    monkeypatch.setattr(auto, "computes_bf16", lambda: False)
    monkeypatch.setattr(auto, "variants", lambda _: [])
    return machine


def remembered(bundle):
    return json.loads((bundle / "engines" / "auto.json").read_text())["choices"]


def proven_int8(folder):
    """A bundle whose INT8 model passed its gate."""
    make_precisions(folder, "int8")
    extend_bundle(folder, {}, {}, {golden_metric("int8"): 0.9})
    return folder


def everything_right(bundle):
    """Let every engine return golden labels that are the same everywhere."""
    golden = read_golden(bundle)
    np.savez(bundle / GOLDEN, inputs=golden["inputs"], labels=np.zeros((2, 32, 48), np.uint8))


@pytest.mark.parametrize("fast", ["onnxruntime", "openvino"])
def test_the_faster_is_taken_and_remembered(bundle, machine, fast):
    machine.ms = {f"{fast} fp32": 1.0}
    assert open_engine(bundle).name == f"{fast} fp32"
    assert machine.names == ["onnxruntime fp32", "openvino fp32"]
    assert open_engine(bundle).name == f"{fast} fp32"
    assert machine.names == [f"{fast} fp32"]  # not measured again
    ((key, entry),) = remembered(bundle).items()
    assert entry["setting"] == {"backend": fast, "precision": "fp32", "threads": None, "spinning": True}
    assert set(entry["milliseconds"]) == {"onnxruntime fp32", "openvino fp32"}
    assert entry["milliseconds"][f"{fast} fp32"] == 1.0
    assert "auto, threads auto" in key


@pytest.mark.parametrize(
    ("ms", "chosen"),
    [
        ({"onnxruntime int8": 1.12, "onnxruntime fp32": 1.0}, "onnxruntime fp32"),  # AVX2: INT8 at 0.89×
        ({"onnxruntime int8": 1.0, "openvino fp32": 0.9}, "openvino fp32"),
        ({"onnxruntime int8": 1.0, "openvino int8": 0.7, "openvino fp32": 0.9}, "openvino int8"),
    ],
)
def test_int8_is_taken_only_where_it_is_faster(tmp_path, machine, ms, chosen):
    bundle = proven_int8(tmp_path / "bundle")
    everything_right(bundle)
    machine.ms = ms
    assert open_engine(bundle).name == chosen
    assert set(machine.measured) == {
        f"{b} {p}" for b in ("onnxruntime", "openvino") for p in ("int8", "fp32")
    }
    assert open_engine(bundle).name == chosen


def test_one_backend_is_measured_in_both_precisions_too(tmp_path, machine, monkeypatch):
    bundle = proven_int8(tmp_path / "bundle")
    everything_right(bundle)
    monkeypatch.setattr(auto, "find_spec", lambda name: name if name == "onnxruntime" else None)
    machine.ms = {"onnxruntime fp32": 1.0, "onnxruntime int8": 1.12}
    assert open_engine(bundle).name == "onnxruntime fp32"


def test_a_precision_without_proof_is_not_even_measured(tmp_path, machine):
    bundle = make_precisions(tmp_path / "bundle", "int8")  # no record of a gate
    everything_right(bundle)
    machine.ms = {"onnxruntime int8": 0.1, "openvino int8": 0.1}
    assert open_engine(bundle).name == "onnxruntime fp32"
    assert set(machine.measured) == {"onnxruntime fp32", "openvino fp32"}


def test_a_precision_that_is_wrong_here_is_not_taken(tmp_path, machine):
    """For example INT8 on CPUs whose 16-bit sums overflow."""
    bundle = proven_int8(tmp_path / "bundle")
    everything_right(bundle)
    machine.ms = {"onnxruntime int8": 0.1, "openvino int8": 0.5}
    machine.labels = {"onnxruntime int8": 1}
    assert open_engine(bundle).name == "openvino int8"
    (entry,) = remembered(bundle).values()
    assert entry["milliseconds"]["onnxruntime int8"] == 0.1
    assert entry["agreement"] == {
        "onnxruntime fp32": 1,
        "onnxruntime int8": 0,
        "openvino fp32": 1,
        "openvino int8": 1,
    }


def test_what_the_build_rejected_is_not_taken_and_no_longer_remembered(tmp_path, machine):
    bundle = proven_int8(tmp_path / "bundle")
    everything_right(bundle)
    machine.ms = {"openvino int8": 0.1, "onnxruntime int8": 0.5}
    assert open_engine(bundle).name == "openvino int8"
    (bundle / "engines" / "openvino-int8.receipt.json").write_text('{"passed": false}')
    assert open_engine(bundle).name == "onnxruntime int8"


@pytest.mark.parametrize(("label", "chosen"), [(0, "openvino bf16"), (1, "openvino fp32")])
def test_bf16_is_taken_where_it_reproduces_the_golden_labels(bundle, machine, monkeypatch, label, chosen):
    everything_right(bundle)
    monkeypatch.setattr(auto, "computes_bf16", lambda: True)
    machine.ms = {"openvino bf16": 0.1, "openvino fp32": 1.0}
    machine.labels = {"openvino bf16": label}
    assert open_engine(bundle).name == chosen
    assert open_engine(bundle).name == chosen  # remembered
    assert (open_engine(bundle, precision="fp32").name, machine.opened[-1].precision) == (
        "openvino fp32",
        "fp32",
    )


def test_bf16_without_golden_labels_is_not_taken(bundle, machine, monkeypatch):
    (bundle / GOLDEN).unlink()
    monkeypatch.setattr(auto, "computes_bf16", lambda: True)
    machine.ms = {"openvino bf16": 0.1, "openvino fp32": 1.0}
    assert open_engine(bundle).name == "openvino fp32"


def test_bf16_cannot_be_asked_for(bundle):
    with pytest.raises(UserError, match="unknown precision 'bf16'"):
        open_engine(bundle, precision="bf16")


def test_threads_are_tuned_for_the_fastest_and_remembered(bundle, machine, monkeypatch):
    monkeypatch.setattr(auto, "variants", variants)
    monkeypatch.setattr("deploy.host.physical_cores", lambda: 4)
    machine.ms = {"openvino fp32": 1.0, "openvino fp32, 2 threads": 0.8, "onnxruntime fp32": 2.0}
    open_engine(bundle)
    tried = ["openvino fp32, 4 threads", "openvino fp32, 2 threads", "openvino fp32, 1 thread"]
    assert machine.names == ["onnxruntime fp32", "openvino fp32", *tried]  # ONNX Runtime is too far behind
    open_engine(bundle)
    assert machine.names == ["openvino fp32, 2 threads"]
    open_engine(bundle, threads=3)
    assert machine.names == ["onnxruntime fp32, 3 threads", "openvino fp32, 3 threads"]
    open_engine(bundle, "openvino")
    assert machine.names == ["openvino fp32"]  # a backend that was asked for is opened as it is


def test_spinning_is_tuned(bundle, machine, monkeypatch):
    monkeypatch.setattr(auto, "variants", variants)
    machine.ms = {"onnxruntime fp32": 1.0, "onnxruntime fp32, 2 threads, without spinning": 0.5}
    open_engine(bundle, threads=2)
    machine.opened.clear()
    open_engine(bundle, threads=2)
    assert machine.names == ["onnxruntime fp32, 2 threads, without spinning"]


def test_what_cannot_be_remembered_is_not_tuned(bundle, machine, monkeypatch):
    monkeypatch.setattr(auto, "variants", variants)
    monkeypatch.setattr(auto, "can_remember", lambda _: False)
    open_engine(bundle)
    assert machine.names == ["onnxruntime fp32", "openvino fp32"]


def test_each_setting_is_measured_for_itself(tmp_path, machine):
    bundle = proven_int8(tmp_path / "bundle")
    for precision, threads in (("fp32", None), ("int8", None), ("int8", 1), ("auto", 1)):
        open_engine(bundle, "auto", threads, precision)
    assert len(remembered(bundle)) == 4
    assert len(machine.opened) == 10  # auto has two precisions


@pytest.mark.parametrize("change", ["model", "version", "cpu_name", "cpu_flags", "quota", "backends"])
def test_whatever_the_speed_depends_on_makes_it_measure_again(bundle, machine, monkeypatch, change):
    open_engine(bundle)
    machine.opened.clear()
    machine.ms = {"onnxruntime fp32": 1.0}
    if change == "model":
        extend_bundle(bundle, {"notes.txt": b"another manifest"})
    elif change == "version":
        monkeypatch.setattr("deploy.backends.choice.installed_version", lambda name: f"{name}-99")
    elif change in ("cpu_name", "cpu_flags"):
        monkeypatch.setattr(host, change, lambda: "another")
    elif change == "quota":
        monkeypatch.setattr(host, "cpu_quota", lambda: 0.5)
    else:
        monkeypatch.setattr(auto, "CPU", ("openvino", "onnxruntime"))
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
    monkeypatch.setattr(auto, "find_spec", lambda name: name if name == "onnxruntime" else None)
    assert open_engine(bundle).name == "onnxruntime fp32"
    assert machine.names == ["onnxruntime fp32"]


def test_where_it_cannot_be_remembered_it_is_chosen_all_the_same(bundle, machine, monkeypatch):
    (bundle / "engines").write_text("a file where the folder should be")
    assert open_engine(bundle).name == "openvino fp32"
    (bundle / "engines").unlink()

    def read_only(path, _):
        raise UserError(f"{path}: cannot be written (Read-only file system); choose another folder")

    monkeypatch.setattr("deploy.backends.choice.write_json", read_only)
    assert open_engine(bundle).name == "openvino fp32"


def test_a_single_way_needs_no_measuring(bundle, machine, monkeypatch):
    monkeypatch.setattr(auto, "find_spec", lambda name: name if name == "openvino" else None)
    monkeypatch.setattr(auto.race, "time_in_turns", lambda *_: pytest.fail("measured"))
    assert open_engine(bundle).name == "openvino fp32"
    assert not (bundle / "engines").exists()


def test_no_backend_at_all_says_what_to_install(bundle, monkeypatch):
    monkeypatch.setattr(auto, "find_spec", lambda name: None)
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


def test_where_no_backend_is_right_the_better_is_taken(bundle, machine):
    golden = read_golden(bundle)["labels"]
    most, least = np.bincount(golden.ravel(), minlength=3).argsort()[[-1, 0]]
    machine.labels = {"openvino fp32": int(least), "onnxruntime fp32": int(most)}
    assert open_engine(bundle).name == "onnxruntime fp32"
    (entry,) = remembered(bundle).values()
    assert entry["milliseconds"]["openvino fp32"] < entry["milliseconds"]["onnxruntime fp32"]
    assert entry["agreement"]["openvino fp32"] < entry["agreement"]["onnxruntime fp32"]


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
    assert entry["agreement"] == {}


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
    backend = entry["setting"]["backend"]
    assert backend in ("onnxruntime", "openvino")
    names = {path.name for path in (bundle / "engines").iterdir()}
    assert names - {"openvino-fp32-1.blob"} == {"auto.json"}


def test_the_real_backends(bundle):
    pytest.importorskip("openvino")
    model = deploy.load(bundle)
    (entry,) = remembered(bundle).values()
    assert model.engine.name == f"{entry['setting']['backend']} fp32"
    assert {share for name, share in entry["agreement"].items() if name.endswith("fp32")} == {1.0}
    again = deploy.load(bundle)
    assert again.engine.name == model.engine.name
    np.testing.assert_array_equal(again(make_image()).labels, model(make_image()).labels)


def test_only_the_files_that_are_opened_are_checked(tmp_path, machine):
    bundle = proven_int8(tmp_path / "bundle")
    everything_right(bundle)
    with pytest.raises(UserError, match=r"golden\.npz"):  # it is changed, and about to be used
        deploy.load(bundle)
    machine.ms = {"onnxruntime int8": 0.1}
    open_engine(bundle)
    assert deploy.load(bundle).engine.name == "onnxruntime int8"  # remembered: the golden file is not read
    (bundle / "model.onnx").unlink()
    assert deploy.load(bundle).engine.name == "onnxruntime int8"
    (bundle / "model.int8-cpu.onnx").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"model\.int8-cpu\.onnx: has 7 bytes"):
        deploy.load(bundle)


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
