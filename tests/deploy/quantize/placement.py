"""What is wrong with where an INT8 file for TensorRT has Q and DQ, and in which types it computes."""

import onnx
from onnx import TensorProto

from deploy.quantize.graph import PRODUCTS, constants, producers, readers

SUMS = ("ReduceMean", "GlobalAveragePool")
"""Means over a whole map stay in float32, because the sum may exceed float16."""


def misplaced(model: bytes) -> list[str]:
    """Names of nodes that keep operators apart, or compute in float32 though they are neither in the normalization of
    the image, nor behind the last product, nor a mean over a map.
    """
    graph = onnx.shape_inference.infer_shapes(
        onnx.load_model_from_string(model), strict_mode=True, data_prop=True
    ).graph
    return [*_apart(graph), *_in_float32(graph)]


def _apart(graph: onnx.GraphProto) -> list[str]:
    """Sums that read a convolution through Q and DQ and none directly, and activations that do."""
    made, read = producers(graph), readers(graph)

    def rounded(name: str) -> bool:
        for operator in ("DequantizeLinear", "QuantizeLinear"):
            if name not in made or made[name].op_type != operator or len(read[name]) > 1:
                return False
            name = made[name].input[0]
        return made[name].op_type == "Conv" and len(read[name]) == 1

    def direct(name: str) -> bool:
        return name in made and made[name].op_type == "Conv" and len(read[name]) == 1

    found = []
    for node in graph.node:
        splits = any(map(rounded, node.input))
        if node.op_type == "Add" and splits and not any(map(direct, node.input)):
            found.append(f"{node.name}: Conv → Q → DQ → Add")
        if node.op_type in ("HardSwish", "Sigmoid", "HardSigmoid", "Mul") and splits:
            found.append(f"{node.name}: Conv → Q → DQ → {node.op_type}")
    return found


def _in_float32(graph: onnx.GraphProto) -> list[str]:
    values = (*graph.input, *graph.value_info, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {name: tensor.data_type for name, tensor in constants(graph).items()}
    before: set[str] = set()
    for node in reversed(graph.node):
        if node.op_type in PRODUCTS or not before.isdisjoint(node.output):
            before.update(node.input)
    found, inside = [], set[str]()
    for node in graph.node:
        if node.op_type in PRODUCTS or not inside.isdisjoint(node.input):
            inside.update(node.output)
        works = node.op_type in PRODUCTS or (
            not inside.isdisjoint(node.input) and not before.isdisjoint(node.output)
        )
        wrong = any(types.get(name) == TensorProto.FLOAT for name in (*node.input[:2], *node.output))
        around = node.op_type in (*SUMS, "Cast") or any(
            made.op_type in SUMS for made in graph.node if not set(made.output).isdisjoint(node.input)
        )
        if works and wrong and not around:
            found.append(f"{node.name}: {node.op_type} in float32")
    return found
