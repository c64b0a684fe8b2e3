"""How targets handle QuantizeLinear (Q) and DequantizeLinear (DQ): which convolutions they will run in INT8.

All rules were measured on minimal graphs with tensorrt-rtx 1.7.1 (its `Layers:` message), onnxruntime 1.31.1 (its
optimized model) and openvino 2026.4.1 (its runtime model); tests/deploy/lint/test_coverage.py repeats the measurements.
"""

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np

from deploy.lint.finding import TENSORRT
from deploy.lint.graph import Graph, Node

MOVES = frozenset(
    ("Flatten", "Identity", "MaxPool", "Pad", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")
)
"""Operators that only move or select values: every target moves Q and DQ across them."""
CLAMPS = frozenset(("Relu", "Clip"))
INT8_OPS = frozenset(
    ("Add", "AveragePool", "Concat", "Conv", "ConvTranspose", "Gemm", "GlobalAveragePool", "MatMul", "Mul")
)
"""Operators that run faster on INT8 inputs on at least one target."""
IN_FLOAT = {"ConvTranspose": ("tensorrt-rtx", "onnxruntime", "openvino")}
"""Those of INT8_OPS that some targets run in float all the same."""


def quantized_type(graph: Graph, node: Node) -> str:
    """The element type on the integer side of a Q or DQ, such as "int8"; "" where it is unknown."""
    return graph.types.get(node.outputs[0] if node.op == "QuantizeLinear" else node.inputs[0], "")


def zero_point(graph: Graph, node: Node) -> np.ndarray | None:
    """The zero point of a Q or DQ; 0 where it is omitted, None where it is computed."""
    name = node.inputs[2] if len(node.inputs) > 2 else ""
    return graph.value(name) if name else np.zeros((), np.int64)


def is_weight(graph: Graph, dequantize: Node) -> bool:
    """Whether the output of this DQ is a constant: its input is one, or a Q of one."""
    source = graph.producer.get(dequantize.inputs[0])
    name = source.inputs[0] if source and source.op == "QuantizeLinear" else dequantize.inputs[0]
    return name in graph.constants


def activations(graph: Graph) -> Iterator[Node]:
    """The QuantizeLinear nodes of computed tensors, not of weights."""
    return (node for node in graph.of("QuantizeLinear") if node.inputs[0] not in graph.constants)


def represented(graph: Graph, quantize: Node) -> tuple[float, float] | None:
    """The smallest and the largest value that a per-tensor Q can represent; None where that is not constant."""
    scale, zero = graph.value(quantize.inputs[1]), zero_point(graph, quantize)
    kind = quantized_type(graph, quantize)
    if scale is None or zero is None or scale.size != 1 or zero.size != 1 or kind not in ("int8", "uint8"):
        return None
    if zero.dtype.kind not in "iu":
        return None
    step, origin, limits = float(scale.item()), int(zero.item()), np.iinfo(kind)
    return step * (limits.min - origin), step * (limits.max - origin)


def origin(graph: Graph, name: str) -> Node | None:
    """The operator that computed a tensor, before operators that move, clamp or quantize it."""
    node = graph.producer.get(name)
    while node and node.op in MOVES | CLAMPS | {"QuantizeLinear", "DequantizeLinear"}:
        node = graph.producer.get(node.inputs[0])
    return node


def is_dequantized(graph: Graph, name: str, target: str) -> bool:
    """Whether a tensor comes out of a DQ, perhaps through MOVES, so that its reader can take the integers.

    TensorRT and OpenVINO also see through a Concat of such tensors; ONNX Runtime does not.
    """
    node = graph.producer.get(name)
    if node is None or node.op == "DequantizeLinear":
        return node is not None
    if node.op == "Concat" and target != "onnxruntime":
        return all(is_dequantized(graph, part, target) for part in node.inputs)
    return node.op in MOVES and is_dequantized(graph, node.inputs[0], target)


class Obstacle(NamedTuple):
    """Why ONNX Runtime leaves an operator with INT8 inputs in float."""

    rule: Literal["clamp-in-float", "shared-int8", "unquantized-output"]
    text: str


def obstacle(graph: Graph, node: Node) -> Obstacle | None:
    """Why ONNX Runtime leaves a Conv, an Add or a MatMul with INT8 inputs in float; None when it does not.

    It fuses DQ → operator → Q only where the only reader of the output is a Q. A Relu or a Clip in between is removed
    if the Q cannot represent the values that it cuts off; otherwise it stays in float, and so does the operator.
    On x86 it converts int8 to uint8 first, but only activations that are read once.
    """
    shared = "int8 activations that are read more than once stay as they are on x86"
    if any(_is_shared(graph, name) for name in node.inputs[:2]):
        return Obstacle("shared-int8", shared)
    name, clamps = node.outputs[0], []
    while len(readers := graph.readers(name)) == 1 and not graph.leaves(name):
        [reader] = readers
        if reader.op == "QuantizeLinear":
            remaining = next((clamp for clamp in clamps if not _absorbs(graph, reader, clamp)), None)
            if remaining is None:
                return Obstacle("shared-int8", shared) if _reads(graph, reader) > 1 else None
            zero = f"{quantized_type(graph, reader)} {zero_point(graph, reader)}"
            return Obstacle("clamp-in-float", f"{remaining} stays in float before the zero point {zero}")
        if reader.op not in MOVES | CLAMPS:
            return Obstacle("unquantized-output", f"{reader} reads its output without a Q")
        clamps += [reader] if reader.op in CLAMPS else []
        name = reader.outputs[0]
    return Obstacle("unquantized-output", "its output is not read by exactly one Q")


def runs_in_int8(graph: Graph, node: Node, target: str) -> bool:
    """Whether the target will run this operator, such as a Conv, in INT8: its data and weights must come from DQs.

    For TensorRT a sum may instead be part of the convolution that makes one of its terms (`fused_convolution`).
    """
    if target in TENSORRT and node.op == "Add" and (conv := fused_convolution(graph, node, target)):
        return runs_in_int8(graph, conv, target)
    operands = node.inputs if node.op == "Concat" else node.inputs[:2]
    able = node.op in INT8_OPS and target not in IN_FLOAT.get(node.op, ())
    quantized = able and all(is_dequantized(graph, name, target) for name in operands)
    return quantized and (target != "onnxruntime" or obstacle(graph, node) is None)


def fused_convolution(graph: Graph, add: Node, target: str) -> Node | None:
    """The Conv into which TensorRT fuses a sum: only the sum reads its result, and the other term is INT8."""
    for name, other in (add.inputs, add.inputs[::-1]):
        conv = graph.producer.get(name)
        alone = len(graph.readers(name)) == 1 and not graph.leaves(name)
        if conv and conv.op == "Conv" and alone and is_dequantized(graph, other, target):
            return conv
    return None


def clip_bounds(graph: Graph, clamp: Node) -> tuple[float, float] | None:
    """Lower and upper bound of a Relu or a Clip; None where they are computed."""
    if clamp.op == "Relu":
        return 0.0, math.inf
    ends: list[float] = []
    for index, attribute, default in ((1, "min", -math.inf), (2, "max", math.inf)):
        name = clamp.inputs[index] if len(clamp.inputs) > index else ""
        end = graph.value(name) if name else np.asarray(clamp.attributes.get(attribute, default))
        if end is None or end.size != 1:
            return None
        ends.append(float(end.item()))
    return ends[0], ends[1]


def _absorbs(graph: Graph, quantize: Node, clamp: Node) -> bool:
    span, bounds = represented(graph, quantize), clip_bounds(graph, clamp)
    if span is None or bounds is None:
        return False
    return bounds[0] <= span[0] and span[1] <= bounds[1] * (1 + 1e-6)  # float32 scales: 255 × (6 / 255) > 6


def _is_shared(graph: Graph, name: str) -> bool:
    """Whether a tensor comes from an int8 activation that is read more than once."""
    node = graph.producer.get(name)
    while node and node.op in MOVES:
        node = graph.producer.get(node.inputs[0])
    source = graph.producer.get(node.inputs[0]) if node else None
    return source is not None and source.op == "QuantizeLinear" and _reads(graph, source) > 1


def _reads(graph: Graph, quantize: Node) -> int:
    """How often an int8 activation is read through its DQ; always 1 for uint8, where the number does not matter."""
    if quantized_type(graph, quantize) != "int8" or quantize.inputs[0] in graph.constants:
        return 1
    names = [node.outputs[0] for node in graph.readers(quantize.outputs[0])]
    return sum(len(graph.readers(name)) + graph.leaves(name) for name in names)
