"""tf32.py: operands of products are rounded to a mantissa of 10 bits, in constants as in the graph."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploy.quantize.tf32 import as_tf32, round_to_tf32
from tests.deploy.quantize.nets import images, residual_net, run


@pytest.mark.parametrize(
    ("value", "rounded"),
    [
        (1 + 2**-10, 1 + 2**-10),
        (1 + 2**-11, 1.0),  # ties to even
        (1 + 3 * 2**-11, 1 + 2**-9),
        (1 + 2**-11 + 2**-20, 1 + 2**-10),
        (-(2 - 2**-20), -2.0),
        (0.0, 0.0),
        (1e-30, round(1e-30 / 2**-110) * 2**-110),
    ],
)
def test_rounding(value, rounded):
    assert round_to_tf32(np.float32([value])) == np.float32([rounded])


def product(weight: np.ndarray) -> bytes:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 64]) for name in "xy")
    node = helper.make_node("MatMul", ["x", "weight"], ["y"])
    graph = helper.make_graph([node], "product", [x], [y], [numpy_helper.from_array(weight, "weight")])
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9
    ).SerializeToString()


@pytest.mark.parametrize("optimized", [False, True])
def test_the_graph_rounds_as_the_constants_do(optimized):
    """Also if ONNX Runtime optimizes it: x + c - c must not become x."""
    random = np.random.default_rng(0)
    x = (random.standard_normal((1, 64)) * 10.0 ** random.integers(-6, 7, (1, 64))).astype(np.float32)
    levels, options = onnxruntime.GraphOptimizationLevel, onnxruntime.SessionOptions()
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    model = as_tf32(product(np.eye(64, dtype=np.float32)))
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], round_to_tf32(x))
    assert (round_to_tf32(x) != x).mean() > 0.9


def test_weights_are_rounded_biases_are_not():
    model = as_tf32(residual_net())
    onnx.checker.check_model(onnx.load_model_from_string(model), full_check=True)
    nodes = onnx.load_model_from_string(model).graph.node
    read = {name for node in nodes if node.op_type == "Conv" for name in node.input}
    assert {name.endswith(".tf32") for name in read if "weight" in name} == {True}
    assert {name.endswith(".tf32") for name in read if "bias" in name} == {False}


def test_a_network_computes_nearly_the_same_but_not_the_same():
    """Between float32 and float16 in error: TF32 has the mantissa of float16."""
    exact = residual_net()
    logits, rounded = (run(model, images(4))[1] for model in (exact, as_tf32(exact)))
    error = np.abs(rounded - logits).max() / np.abs(logits).max()
    assert 1e-5 < error < 2e-2
