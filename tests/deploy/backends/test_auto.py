"""`auto` on a CPU: the fastest backend and precision that is right."""

import numpy as np
import pytest

import deploy
from deploy.backends import auto
from deploy.backends.open import open_engine
from deploy.backends.setting import variants
from deploy.bundle.golden_file import read_golden
from deploy.bundle.manifest import GOLDEN
from deploy.errors import UserError
from tests.deploy.backends.cpu_fakes import everything_right, proven_int8, remembered
from tests.deploy.precisions import make_precisions


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
