"""What `auto` chose is remembered for as long as it holds."""

import subprocess
import sys

import numpy as np
import pytest

import deploy
from deploy import host
from deploy.backends import auto
from deploy.backends.open import open_engine
from deploy.bundle.bundle_files import extend_bundle
from deploy.errors import UserError
from tests.conftest import ROOT
from tests.deploy.backends.cpu_fakes import everything_right, proven_int8, remembered
from tests.deploy.tiny import make_image


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


def test_a_remembered_backend_that_fails_is_replaced(bundle, machine):
    open_engine(bundle)
    machine.broken = {"openvino"}
    with pytest.warns(RuntimeWarning, match="is broken"):
        assert open_engine(bundle).name == "onnxruntime fp32"


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
    assert {path.name for path in (bundle / "engines").iterdir()} == {"auto.json"}


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


def test_each_setting_is_measured_for_itself(tmp_path, machine):
    bundle = proven_int8(tmp_path / "bundle")
    for precision, threads in (("fp32", None), ("int8", None), ("int8", 1), ("auto", 1)):
        open_engine(bundle, "auto", threads, precision)
    assert len(remembered(bundle)) == 4
    assert len(machine.opened) == 10  # auto has two precisions
