"""Models written without `onnx` are what `onnx` reads, and run."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, checker, helper, numpy_helper

from deploy.backends.onnxruntime_cpu import import_onnxruntime
from deploy.inference.onnx_bytes import IR_VERSION, OPSET, Node, Value, onnx_bytes

CONSTANTS = {
    "matrix": np.arange(600, dtype=np.float32).reshape(2, 300) / 7,
    "shape": np.array([-1, 150, 2], np.int64),
    "scalar": np.array(-3, np.int8),
    "bytes": np.array([0, 255], np.uint8),
}
NODES = [Node("MatMul", ["x", "matrix"], "y"), Node("Reshape", ["y", "shape"], "z")]


def written() -> bytes:
    return onnx_bytes(Value("x", "float32", (4, 2)), NODES, CONSTANTS, Value("z", "float32", (4, 150, 2)))


def test_the_library_reads_what_was_written():
    model = onnx.load_from_string(written())
    checker.check_model(model, full_check=True)
    graph = helper.make_graph(
        [helper.make_node(node.operator, node.inputs, [node.output]) for node in NODES],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 2])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [4, 150, 2])],
        [numpy_helper.from_array(array, name) for name, array in CONSTANTS.items()],
    )
    assert model.graph == graph
    assert (model.ir_version, [one.version for one in model.opset_import]) == (IR_VERSION, [OPSET])


def test_it_runs():
    x = np.random.default_rng(0).random((4, 2), np.float32)
    session = import_onnxruntime().InferenceSession(written(), providers=["CPUExecutionProvider"])
    [z] = session.run(None, {"x": x})
    np.testing.assert_allclose(z, (x @ CONSTANTS["matrix"]).reshape(4, 150, 2), rtol=1e-5)


def test_other_dtypes_are_a_bug():
    with pytest.raises(KeyError):
        onnx_bytes(Value("x", "float64", (1,)), [], {}, Value("x", "float64", (1,)))
