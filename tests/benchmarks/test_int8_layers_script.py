"""benchmarks/int8_layers.py: layers of a small network in each form."""

import json

import pytest

from benchmarks import int8_layers
from deploy.quantize.qdq import insert, layers
from deploy.quantize.tensorrt_form import tensorrt_form
from tests.deploy.quantize.nets import residual_net


def test_counts_layers_and_fused_sums(tmp_path, capsys, monkeypatch):
    pytest.importorskip("tensorrt_rtx")
    model = residual_net()
    complete = insert(model, {tensor: 4.0 for layer in layers(model) for tensor in layer.tensors})
    made = {"fp32": model, "int8 complete": complete, "int8": tensorrt_form(complete)}
    monkeypatch.setattr(int8_layers, "forms", lambda name, size: made)
    assert int8_layers.main(["small", "--json", str(tmp_path / "layers.json")]) == 0
    found = json.loads((tmp_path / "layers.json").read_text())["small"]
    assert set(found) == set(made)
    assert found["fp32"]["fused sums"] == len(int8_layers.sums_of(model)) == 3
    convolutions = found["fp32"]["convolutions float32"]
    for form in ("int8 complete", "int8"):
        assert found[form]["convolutions int8"] == convolutions
        assert "convolutions float32" not in found[form]
    assert "matrices float32" not in found["int8"]
    assert "fused sums" in capsys.readouterr().out
