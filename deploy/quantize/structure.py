"""Find the operators of a graph that can run in INT8, and the tensors that need a grid for it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

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


_NORMS = {"GroupNormalization", "InstanceNormalization", "LayerNormalization", "RMSNormalization"}
_ARRANGES = {"Reshape", "Transpose"}


@dataclass(frozen=True)
class Layer:
    """An operator that can run in INT8.

    Attributes:
        name: of a product, the name of its weight: "backbone.layer1.0.conv1"; of a sum, "backbone.layer1.0.add".
        kind: its operator: "Conv", "MatMul" or "Gemm" (the products), or "Add".
        block: the block that it belongs to: "backbone.layer1.0".
        tensors: the activations whose range it needs: its one or two inputs, and the result of a convolution that is
            read by operators in float, or of a matrix product. Max pooling, pixel shuffle and a slice of it keep the
            grid of their input, so the tensor before them is named instead of the one after.
        output: the tensor that the operator computes.
    """

    name: str
    kind: Literal["Conv", "MatMul", "Gemm", "Add"]
    block: str
    tensors: tuple[str, ...]
    output: str


def find_layers(graph: onnx.GraphProto) -> list[Layer]:
    """Find products with trained weights and sums of two activations, in the order of execution.

    A sum belongs to the block of the preceding layer. Sums of tokens, which are no maps N×C×H×W, and sums that a
    normalization reads stay in float: they carry a transformer's features from block to block.
    """
    weights, made, read = constants(graph), producers(graph), readers(graph)
    outputs = {output.name for output in graph.output}
    features = downstream(graph, [node.output[0] for node in graph.node if node.op_type == "Conv"])
    kinds = {value.name: value.type.tensor_type for value in graph.value_info}
    tokens = {name for name, kind in kinds.items() if kind.HasField("shape") and len(kind.shape.dim) != 4}
    found: list[Layer] = []
    for node in graph.node:
        result = node.output[0]
        if _is_product(node, weights):
            name = _product_name(node, weights, read)
            block, tensors = _block(name), [node.input[0]]
            written = result if node.op_type != "Conv" else _after_activation(result, read)
            in_float = node.op_type != "Conv" or any(one.op_type in _FLOAT_READERS for one in read[written])
            if written not in outputs and in_float:
                tensors.append(written)
        elif node.op_type == "Add" and found and features.issuperset(node.input):
            if result in tokens or _normalized(result, read):
                continue
            block, tensors = found[-1].block, list(node.input)
            name = f"{block}.add"
        else:
            continue
        tensors = tuple(_before_moves(tensor, made) for tensor in tensors)
        kind = cast(Literal["Conv", "MatMul", "Gemm", "Add"], node.op_type)
        found.append(Layer(_unique(name, found), kind, block, tensors, result))
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


def weight_axis(node: onnx.NodeProto) -> int:
    """The axis of a product's weight along which its outputs lie."""
    if node.op_type == "Conv":
        return 0
    return 0 if _attributes(node).get("transB", 0) else 1


def _is_product(node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto]) -> bool:
    """Whether the node multiplies an activation by trained weights.

    A matrix that is never negative is none: those of pooling and upsampling, which round badly (a few small numbers)
    and are cheap.
    """
    if node.op_type == "Conv":
        return node.input[1] in weights
    if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in weights or node.input[0] in weights:
        return False
    scaled = {"transA": 0, "alpha": 1.0, "beta": 1.0}
    if any(_attributes(node).get(name, usual) != usual for name, usual in scaled.items()):
        return False
    matrix = weights[node.input[1]]
    is_float = matrix.data_type == onnx.TensorProto.FLOAT and len(matrix.dims) == 2
    return is_float and bool((numpy_helper.to_array(matrix) < 0).any())


def _attributes(node: onnx.NodeProto) -> dict[str, object]:
    return {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}


def _product_name(node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto], read: Readers) -> str:
    """The name of a product's weight. That of a transposed matrix is lost in the export, but not its bias's."""
    name = node.input[1]
    if node.op_type != "Conv" and not name.endswith(".weight"):
        biases = [other for one in read[node.output[0]] if one.op_type == "Add" for other in one.input]
        named = [other for other in biases if other in weights and other.endswith(".bias")]
        name = named[0].removesuffix(".bias") if named else node.name or node.output[0]
    return name.removesuffix(".weight").removeprefix("network.")


def _normalized(tensor: str, read: Readers) -> bool:
    """Whether a normalization reads the tensor, perhaps after its values were arranged in another order."""
    return any(
        reader.op_type in _NORMS or (reader.op_type in _ARRANGES and _normalized(reader.output[0], read))
        for reader in read[tensor]
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
