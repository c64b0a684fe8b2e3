"""Find the operators of a graph that can run in INT8, and the tensors that need a grid for it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import onnx
from onnx import numpy_helper

from deploy.quantize.graph import Readers, constants, downstream, producers, readers

_FLOAT_READERS = {
    "Concat", "ConvTranspose", "DepthToSpace", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Mul",
    "PRelu", "Reshape", "Resize", "Sigmoid", "Swish", "Tanh",
}  # fmt: skip
"""Operators that always run in float. A convolution before one of them writes to a grid all the same: otherwise a CPU
runs it in float and decodes its weights at every call. (Reshape: a folded pyramid's taps.)"""
_POSITIVE = {"Abs", "HardSigmoid", "Relu", "Sigmoid", "Softmax"}
_POSITIVE_IF_ALL_INPUTS_ARE = {"Add", "Concat", "MatMul", "Mul"}
_POSITIVE_IF_FIRST_INPUT_IS = {
    "AveragePool", "Clip", "DepthToSpace", "DequantizeLinear", "Flatten", "GlobalAveragePool", "GlobalMaxPool",
    "Identity", "MaxPool", "QuantizeLinear", "ReduceMean", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze",
}  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """An operator that can run in INT8.

    Attributes:
        name: of a convolution, the name of its weight: "backbone.layer1.0.conv1"; of a sum, "backbone.layer1.0.add".
        kind: "Conv" or "Add".
        block: the block that it belongs to: "backbone.layer1.0".
        tensors: the activations whose range it needs: its one or two inputs, and the result of a convolution that is
            read by operators in float. Max pooling, pixel shuffle and a slice of it keep the grid of their input, so
            the tensor before them is named instead of the one after.
        output: the tensor that the operator computes.
    """

    name: str
    kind: Literal["Conv", "Add"]
    block: str
    tensors: tuple[str, ...]
    output: str


def find_layers(graph: onnx.GraphProto) -> list[Layer]:
    """Find convolutions with constant weights and sums of two activations, in the order of execution.

    A sum belongs to the block of the preceding layer.
    """
    weights, made, read = constants(graph), producers(graph), readers(graph)
    outputs = {output.name for output in graph.output}
    features = downstream(graph, [node.output[0] for node in graph.node if node.op_type == "Conv"])
    found: list[Layer] = []
    for node in graph.node:
        if node.op_type == "Conv" and node.input[1] in weights:
            name = node.input[1].removesuffix(".weight").removeprefix("network.")
            block, tensors = _block(name), [node.input[0]]
            result = _after_activation(node.output[0], read)
            if result not in outputs and any(reader.op_type in _FLOAT_READERS for reader in read[result]):
                tensors.append(result)
        elif node.op_type == "Add" and found and features.issuperset(node.input):
            block, tensors = found[-1].block, list(node.input)
            name = f"{block}.add"
        else:
            continue
        tensors = tuple(_before_moves(tensor, made) for tensor in tensors)
        kind = "Conv" if node.op_type == "Conv" else "Add"
        found.append(Layer(_unique(name, found), kind, block, tensors, node.output[0]))
    return found


def find_grids(graph: onnx.GraphProto, chosen: Iterable[Layer]) -> dict[str, str]:
    """Find the tensors that get a grid for the chosen layers.

    The result of max pooling or pixel shuffle has the grid of its input. The input of a Clip gets the grid of its
    result: rounding before clipping does not change the result, and lets the preceding convolution write integers.

    Returns:
        By tensor, the tensor whose range its grid covers: mostly itself.
    """
    grids = {tensor: tensor for layer in chosen for tensor in layer.tensors}
    made, read = producers(graph), readers(graph)
    for node in graph.node:
        if _moves(node, made) and node.input[0] in grids:
            grids[node.output[0]] = grids[node.input[0]]
    for node in reversed(graph.node):
        if node.op_type == "Clip" and node.output[0] in grids and len(read[node.input[0]]) == 1:
            grids[node.input[0]] = grids[node.output[0]]
    return grids


def never_negative(graph: onnx.GraphProto) -> set[str]:
    """The tensors that are at least 0 for any image, by the types of the operators that compute them."""
    floats = [tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    known = {tensor.name for tensor in floats if numpy_helper.to_array(tensor).min(initial=0.0) >= 0}
    for node in graph.node:
        if (
            node.op_type in _POSITIVE
            or (node.op_type in _POSITIVE_IF_ALL_INPUTS_ARE and known.issuperset(node.input))
            or (node.op_type in _POSITIVE_IF_FIRST_INPUT_IS and node.input[0] in known)
            or (node.op_type == "Clip" and len(node.input) > 1 and node.input[1] in known)
        ):
            known.update(node.output)
    return known


def starts_at_zero(tensor: str, positive: set[str], read: Readers) -> bool:
    """Whether a grid needs no negative values: the tensor has none, or all its readers clip them.

    Args:
        tensor: the tensor before its QuantizeLinear.
        positive: `never_negative` of the graph.
        read: `readers` of the graph.
    """
    if tensor in positive:
        return True
    grid = [node for node in read[tensor] if node.op_type == "QuantizeLinear"]
    values = [node for quantize in grid for node in read[quantize.output[0]]]
    users = [node for dequantize in values for node in read[dequantize.output[0]]]
    return bool(users) and all(
        node.op_type in ("Relu", "Clip") and node.output[0] in positive for node in users
    )


def _block(name: str) -> str:
    """The name up to its first indices: "backbone.layer2.0" for "backbone.layer2.0.downsample.0"."""
    match = re.match(r".*?(?:\.\d+)+(?=\.|$)", name)
    return match.group() if match else name


def _unique(name: str, found: Sequence[Layer]) -> str:
    """The name, numbered if another layer has it: weights may be shared."""
    names = {layer.name for layer in found}
    candidates = (name if number == 1 else f"{name}#{number}" for number in range(1, len(found) + 2))
    return next(candidate for candidate in candidates if candidate not in names)


def _after_activation(tensor: str, read: Readers) -> str:
    """The output of the Relu or Clip that is the tensor's only reader; else the tensor itself."""
    if len(read[tensor]) == 1 and read[tensor][0].op_type in ("Relu", "Clip"):
        return read[tensor][0].output[0]
    return tensor


def _moves(node: onnx.NodeProto, made: Mapping[str, onnx.NodeProto]) -> bool:
    """Whether the node only selects or moves values: max pooling, pixel shuffle, or a slice of that."""
    if node.op_type == "Slice":
        source = made.get(node.input[0])
        return source is not None and source.op_type != "MaxPool" and _moves(source, made)
    return node.op_type in ("MaxPool", "DepthToSpace")


def _before_moves(tensor: str, made: Mapping[str, onnx.NodeProto]) -> str:
    while tensor in made and _moves(made[tensor], made):
        tensor = made[tensor].input[0]
    return tensor
