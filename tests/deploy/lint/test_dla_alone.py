"""A network that no DLA can run alone: what is in it that is no layer of the DLA."""

import onnx
from onnx import TensorProto, helper

from deploy.bundle.manifest import MODEL
from deploy.lint.dla_alone import not_alone
from tests.deploy.tiny import make_bundle


def test_operators_are_named(tmp_path):
    make_bundle(tmp_path)
    why = not_alone(tmp_path / MODEL)
    assert why.startswith("model.onnx has ")
    assert "operators that no DLA runs (Cast real: Cast is not a layer of the DLA; " in why
    assert "\n" not in why


def test_a_network_that_it_runs(tmp_path):
    relu = helper.make_node("Relu", ["x"], ["y"])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, [1, 8, 4, 4]) for name in "xy"]
    graph = helper.make_graph([relu], "relu", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), tmp_path / "relu.onnx")
    assert not_alone(tmp_path / "relu.onnx") == ""
