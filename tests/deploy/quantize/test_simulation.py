"""simulation.py and rounding.py: float16 values are rounded to the grid whatever ONNX Runtime does with them."""

from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploy.errors import UserError
from deploy.quantize import simulation
from deploy.quantize.rounding import rounded_in_float32
from deploy.quantize.simulation import computed_right

SCALE = np.float16(0.05)


def quantizing() -> bytes:
    nodes = [helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["y"])]
    half = helper.make_tensor_value_info("x", TensorProto.FLOAT16, [1, 64])
    grid = helper.make_tensor_value_info("y", TensorProto.INT8, [1, 64])
    constants = [
        numpy_helper.from_array(np.array(SCALE), "scale"),
        numpy_helper.from_array(np.int8(0), "zero"),
    ]
    graph = helper.make_graph(nodes, "quantizing", [half], [grid], constants)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9
    ).SerializeToString()


@pytest.mark.parametrize("form", [computed_right, rounded_in_float32])
def test_values_are_rounded_not_cut_off(form):
    x = (np.random.default_rng(0).standard_normal((1, 64)) * 3).astype(np.float16)
    session = onnxruntime.InferenceSession(form(quantizing()), providers=["CPUExecutionProvider"])
    expected = np.rint(x.astype(np.float32) / np.float32(SCALE)).clip(-128, 127)
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], expected)


def test_a_runtime_that_rounds_gets_the_file_as_it_is(monkeypatch):
    model = quantizing()
    for version, same in (("1.23.2", False), ("1.29.0", False), ("1.30.0", True), ("2.0.0", True)):
        monkeypatch.setattr(
            simulation, "import_onnxruntime", lambda v=version: SimpleNamespace(__version__=v)
        )
        assert (computed_right(model) == model) is same


def test_without_onnx_such_a_runtime_is_refused(monkeypatch):
    monkeypatch.setattr(simulation, "import_onnxruntime", lambda: SimpleNamespace(__version__="1.23.2"))
    monkeypatch.setattr(simulation, "find_spec", lambda _: None)
    with pytest.raises(
        UserError, match=r"onnxruntime 1\.23\.2 computes .* only with the package onnx: pip install"
    ):
        computed_right(quantizing())
