"""The INT8 model as TensorRT runs it fastest: without pairs that keep operators apart, and float16 beside INT8."""

from collections.abc import Iterable, Mapping, Sequence

import onnx

from deploy.quantize.graph import PRODUCTS, Readers, downstream, load, producers, readers, rebuilt
from deploy.quantize.half import half_beside_int8

_ACTIVATIONS = {
    "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Mul", "PRelu", "Sigmoid", "Swish", "Tanh",
}  # fmt: skip
"""Functions of single values, in float, that a convolution can compute before it writes its result."""


def tensorrt_form(s8: bytes) -> bytes:
    """Convert the result of `deploy.quantize.qdq.insert` for TensorRT.

    TensorRT computes a convolution, a sum, an activation and the rounding to the next grid in one kernel, unless Q and
    DQ stand between them. So these pairs, which only CPUs need, are left out:

    - between a convolution and a sum of two features. The other term, the residual, stays on its grid, and the kernel
      reads a byte for each of its values. Where both are convolutions, the deeper one is not rounded. (NVIDIA, "Add
      Custom QDQ Insertion Case" in the guide of its TensorFlow quantization toolkit; Model-Optimizer pull request 425.)
    - between a convolution and an activation in float, such as HardSwish, or a matrix product and its bias. (NVIDIA,
      TensorRT developer guide, "Q/DQ Layer-Placement Recommendations": quantize the inputs of operators that run in
      INT8, not their outputs.)

    What is not INT8 becomes float16.
    """
    proto = load(s8)
    made, read = producers(proto.graph), readers(proto.graph)
    _free_sums(proto.graph, made, read)
    _free_results(proto.graph, made, read)
    return half_beside_int8(rebuilt(proto, list(_needed(proto.graph)), {}))


def _free_sums(graph: onnx.GraphProto, made: Mapping[str, onnx.NodeProto], read: Readers) -> None:
    """Let a sum read the convolution that it fuses with directly."""
    depths = _depths(graph.node)
    features = downstream(graph, [node.output[0] for node in graph.node if node.op_type == "Conv"])
    for node in graph.node:
        if node.op_type != "Add" or not features.issuperset(node.input):
            continue
        direct = {
            index: source
            for index, name in enumerate(node.input)
            if len(read[name]) == 1 and (source := _convolved(name, made, read))
        }
        if direct:
            deepest = max(direct, key=lambda index: depths[node.input[index]])
            node.input[deepest] = direct[deepest]


def _free_results(graph: onnx.GraphProto, made: Mapping[str, onnx.NodeProto], read: Readers) -> None:
    """Let activations in float read the convolution before them directly, and operators in float a matrix product."""
    for node in graph.node:
        for index, name in enumerate(node.input):
            kinds = {reader.op_type for reader in read[name]}
            if kinds <= _ACTIVATIONS:
                node.input[index] = _convolved(name, made, read) or name
            elif kinds.isdisjoint(PRODUCTS) and (source := _convolved(name, made, read, ("MatMul", "Gemm"))):
                # Another matrix pools or enlarges; its result has a grid as the residual of a sum.
                weight = made.get(made[source].input[1])
                trained = weight is not None and weight.op_type == "DequantizeLinear"
                node.input[index] = source if trained else name


def _convolved(
    name: str, made: Mapping[str, onnx.NodeProto], read: Readers, products: Sequence[str] = ("Conv",)
) -> str:
    """The result of a product that `name` has the rounded values of, if it is read for nothing else; else ""."""
    for operator in ("DequantizeLinear", "QuantizeLinear"):
        if name not in made or made[name].op_type != operator:
            return ""
        name = made[name].input[0]
        if len(read[name]) != 1:
            return ""
    return name if name in made and made[name].op_type in products else ""


def _depths(nodes: Iterable[onnx.NodeProto]) -> dict[str, int]:
    """For every computed tensor the largest number of convolutions between it and the image."""
    depths: dict[str, int] = {}
    for node in nodes:
        depth = max((depths.get(name, 0) for name in node.input), default=0) + (node.op_type == "Conv")
        depths.update(dict.fromkeys(node.output, depth))
    return depths


def _needed(graph: onnx.GraphProto) -> Iterable[onnx.NodeProto]:
    """The nodes whose results are still read, in the order of the graph."""
    needed = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            needed.update(node.input)
            kept.append(node)
    return reversed(kept)
