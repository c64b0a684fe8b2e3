"""benchmarks/int8_forms.py: forms of the same grids, scored and compiled."""

import json

import pytest

from benchmarks import int8_forms
from deploy import build_engine
from deploy.backends.tensorrt_gpu import cuda, signs
from deploy.errors import UserError
from tests.deploy.labeled_bundle import make_labeled_bundle


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    monkeypatch.setattr(cuda, "why_not", lambda device=0: "no driver")
    monkeypatch.setattr(signs, "look", signs.Signs)
    return make_labeled_bundle(tmp_path / "tiny.bundle")


def test_compares_forms(bundle, tmp_path, capsys):
    pytest.importorskip("tensorrt_rtx")
    assert build_engine.main([str(bundle), "--backend", "onnxruntime"]) == 0
    capsys.readouterr()
    assert int8_forms.main([str(bundle), "--json", str(tmp_path / "forms.json")]) == 0
    rows = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]
    assert [row for row in rows if row in int8_forms.forms(bundle)] == [
        "fp32",
        "fp16",
        "int8 complete",
        "int8",
        "int8 cpu",
    ]
    (measured,) = json.loads((tmp_path / "forms.json").read_text()).values()
    assert measured["fp32"]["agreement"] == 1
    assert measured["fp32"]["convolutions float32"] == measured["fp16"]["convolutions float16"] == 1
    assert measured["int8"]["convolutions int8"] == measured["int8 complete"]["convolutions int8"] == 1
    assert "layers" not in measured["int8 cpu"]
    assert min(row["agreement"] for row in measured.values()) > 0.95


def test_without_a_target_nothing_is_compiled(bundle, capsys):
    build_engine.main([str(bundle), "--backend", "onnxruntime"])
    capsys.readouterr()
    int8_forms.main([str(bundle), "--target", ""])
    assert "layers" not in capsys.readouterr().out


def test_a_bundle_without_int8_is_refused(bundle):
    with pytest.raises(UserError, match=r"has no model\.int8\.onnx; make it: edgedistill build"):
        int8_forms.main([str(bundle)])
