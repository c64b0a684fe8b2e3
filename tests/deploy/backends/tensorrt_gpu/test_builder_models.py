"""Small networks shaped like the project's for the tests of the TensorRT builder, and a test of what they compute."""

from pathlib import Path
from typing import Literal
from unittest.mock import patch

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploy.backends.onnxruntime_cpu import OrtEngine
from deploy.backends.tensorrt_gpu import builder as trt_builder
from deploy.backends.tensorrt_gpu.builder import BuildOptions, Built, build_engine
from deploy.bundle.bundle_files import write_bundle
from tests.deploy.tiny import make_image, make_manifest

CONVOLUTIONS = ("conv0", "conv1", "conv2")
PRODUCT = "matmul"

Kind = Literal["fp32", "fp16", "s8", "u8", "int32-bias"]
Batch = Literal["N"] | int

SCALE = np.float32(4 / 127)


class Graph:
    """Nodes and constants of a network under construction."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}

    def add(self, operator: str, *inputs: str, name: str, **attributes) -> str:
        """Append a node and return its output, which has the node's name."""
        self.nodes.append(helper.make_node(operator, inputs, [f"{name}.out"], name, **attributes))
        return f"{name}.out"

    def constant(self, name: str, value) -> str:
        self.constants[name] = np.asarray(value)
        return name

    def rounded(self, tensor: str, name: str, zero) -> str:
        """The tensor quantized and dequantized."""
        grid = self.constant(f"{name}.scale", SCALE), self.constant(f"{name}.zero", zero)
        quantized = self.add("QuantizeLinear", tensor, *grid, name=f"{name}_QuantizeLinear")
        return self.add("DequantizeLinear", quantized, *grid, name=f"{name}_DequantizeLinear")

    def weights(self, name: str, value: np.ndarray, kind: Kind) -> str:
        """A convolution's weights, in INT8 kinds per output channel."""
        if kind in ("fp32", "fp16"):
            return self.constant(name, value.astype(np.float32 if kind == "fp32" else np.float16))
        scale = (np.abs(value).reshape(len(value), -1).max(1) / 127).astype(np.float32)
        grid = np.round(value / scale[:, None, None, None]).astype(np.int8)
        zeros = np.zeros(len(value), np.int8)
        parts = [
            self.constant(f"{name}.{part}", data)
            for part, data in (("grid", grid), ("scale", scale), ("zero", zeros))
        ]
        return self.add("DequantizeLinear", *parts, name=f"{name}_DequantizeLinear", axis=0)

    def bias(self, name: str, value: np.ndarray, kind: Kind) -> str:
        if kind != "int32-bias":
            return self.constant(name, value.astype(np.float16 if kind == "fp16" else np.float32))
        parts = [
            self.constant(f"{name}.grid", np.round(value / 0.01).astype(np.int32)),
            self.constant(f"{name}.scale", np.full(len(value), 0.01, np.float32)),
            self.constant(f"{name}.zero", np.zeros(len(value), np.int32)),
        ]
        return self.add("DequantizeLinear", *parts, name=f"{name}_DequantizeLinear", axis=0)

    def model(self, batch: Batch = "N", outputs: tuple[str, ...] = ("labels", "logits")) -> bytes:
        """An ONNX model that reads uint8 32×48×3 `image`; its nodes must make the outputs."""
        shapes = {
            "labels": (TensorProto.UINT8, [batch, 32, 48]),
            "logits": (TensorProto.FLOAT, [batch, 3, 8, 12]),
        }
        graph = helper.make_graph(
            self.nodes,
            "small",
            [helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, 32, 48, 3])],
            [helper.make_tensor_value_info(name, *shapes[name]) for name in outputs],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("robot", 1)], ir_version=10
        )
        onnx.checker.check_model(model)
        return model.SerializeToString()


def small_network(
    kind: Kind = "fp32",
    batch: Batch = "N",
    outputs: tuple[str, ...] = ("labels", "logits"),
    product: bool = True,
) -> bytes:
    """Three convolutions, one matrix product, and head and tail as in our exports; 32×48×3 to 3 classes, stride 4.

    "s8" is INT8 as TensorRT takes it: signed, symmetric, float biases. "u8" is the CPU's form, "int32-bias" what
    ONNX Runtime's quantizer writes by default.
    """
    rng = np.random.default_rng(0)
    real = np.float16 if kind == "fp16" else np.float32
    int8 = kind not in ("fp32", "fp16")
    zero = np.uint8(128) if kind == "u8" else np.int8(0)
    graph = Graph()
    tensor = graph.add("Cast", "image", name="cast", to=helper.np_dtype_to_tensor_dtype(np.dtype(real)))
    tensor = graph.add("Transpose", tensor, name="permute", perm=[0, 3, 1, 2])
    tensor = graph.add("Sub", tensor, graph.constant("mean", np.full((1, 3, 1, 1), 110, real)), name="sub")
    tensor = graph.add("Mul", tensor, graph.constant("rate", np.full((1, 3, 1, 1), 1 / 60, real)), name="mul")
    for index, (out, size) in enumerate(((16, 3), (16, 3), (3, 1))):
        before = 3 if index == 0 else 16
        name = f"conv{index}"
        if int8:
            tensor = graph.rounded(tensor, f"act{index}", zero)
        weights = graph.weights(
            f"{name}.weight", rng.normal(0, 1 / (size * before**0.5), (out, before, size, size)), kind
        )
        bias = graph.bias(f"{name}.bias", rng.normal(0, 0.1, out), kind)
        step = 2 if index < 2 else 1
        tensor = graph.add("Conv", tensor, weights, bias, name=name, strides=[step] * 2, pads=[size // 2] * 4)
        if index < 2:
            tensor = graph.add("Relu", tensor, name=f"relu{index}")
    mix = graph.constant("mix", np.eye(12, dtype=real) + rng.normal(0, 0.1, (12, 12)).astype(real))
    if product:
        tensor = graph.add("MatMul", tensor, mix, name=PRODUCT)
    graph.nodes.append(helper.make_node("Cast", [tensor], ["logits"], "to_logits", to=TensorProto.FLOAT))
    if "labels" not in outputs:
        return graph.model(batch, outputs)
    scales = graph.constant("scales", np.array([1, 1, 4, 4], np.float32))
    tensor = graph.add("Resize", "logits", "", scales, name="enlarge", mode="linear")
    tensor = graph.add("ArgMax", tensor, name="argmax", axis=1, keepdims=0)
    graph.nodes.append(helper.make_node("Cast", [tensor], ["labels"], "to_labels", to=TensorProto.UINT8))
    return graph.model(batch, outputs)


def network_of(operator: str, **attributes) -> bytes:
    """A network with one node of the operator, on the image as float; only Transpose reads the uint8 image itself."""
    graph = Graph()
    if operator == "Transpose":
        tensor = graph.add(operator, "image", name="odd", **attributes)
        tensor = graph.add("Cast", tensor, name="cast", to=TensorProto.FLOAT)
    else:
        tensor = graph.add("Cast", "image", name="cast", to=TensorProto.FLOAT)
        tensor = graph.add(operator, tensor, name="odd", **attributes)
    graph.nodes += [
        helper.make_node("Cast", [tensor], ["labels"], "to_labels", to=TensorProto.UINT8),
        helper.make_node("Identity", [tensor], ["logits"], "to_logits"),
    ]
    return graph.model()


def bundle_of(folder: Path, **files: bytes) -> Path:
    """A bundle with these files: `model`, `model_int8`, `model_fp16`."""
    named = {name.replace("_", ".") + ".onnx": data for name, data in files.items()}
    write_bundle(folder, make_manifest(), {"model.onnx": small_network(), **named})
    return folder


def bundle_of_all(folder: Path) -> Path:
    """A bundle that has every precision."""
    return bundle_of(folder, model_int8=small_network("s8"), model_fp16=small_network("fp16"))


def build_ahead(bundle: Path, precision="int8", targets=("sm86",), **options) -> tuple[Built, list[str]]:
    """Build with TensorRT-RTX as on a machine without a GPU; also returns the messages."""
    said: list[str] = []
    options = BuildOptions("tensorrt-rtx", precision, targets=targets, **options)
    with patch.object(trt_builder.cuda, "find", lambda index: None):
        return build_engine(bundle, options, progress=False, say=said.append), said


def left(bundle: Path) -> list[str]:
    """Names of all files in the folder of engines, hidden ones included."""
    folder = bundle / "engines"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.fixture(scope="module")
def reference() -> np.ndarray:
    images = np.stack([make_image("rgb", seed) for seed in range(2)])
    return OrtEngine(small_network(), threads=1).run(images)["logits"]


@pytest.mark.parametrize(
    ("kind", "tolerance"), [("fp16", 0.02), ("s8", 0.2), ("u8", 0.2), ("int32-bias", 0.2)]
)
def test_all_kinds_compute_about_the_same(kind: Kind, tolerance, reference):
    images = np.stack([make_image("rgb", seed) for seed in range(2)])
    logits = OrtEngine(small_network(kind), threads=1).run(images)["logits"]
    assert reference.std() > 0.3
    np.testing.assert_allclose(logits, reference, atol=tolerance)
