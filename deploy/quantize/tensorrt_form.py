"""The INT8 model as TensorRT runs it fastest: without pairs that keep operators apart, and float16 beside INT8."""

from collections.abc import Iterable, Mapping

import onnx

from deploy.quantize.graph import Readers, downstream, load, producers, readers, rebuilt
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
    - between a convolution and an activation in float, such as HardSwish. (NVIDIA, TensorRT developer guide, "Q/DQ
      Layer-Placement Recommendations": quantize the inputs of operators that run in INT8, not their outputs.)

    What is not INT8 becomes float16.
    """
    proto = load(s8)
    made, read = producers(proto.graph), readers(proto.graph)
    _free_sums(proto.graph, made, read)
    _free_activations(proto.graph, made, read)
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


def _free_activations(graph: onnx.GraphProto, made: Mapping[str, onnx.NodeProto], read: Readers) -> None:
    """Let activations in float read the convolution before them directly."""
    for node in graph.node:
        for index, name in enumerate(node.input):
            if all(reader.op_type in _ACTIVATIONS for reader in read[name]):
                node.input[index] = _convolved(name, made, read) or name


def _convolved(name: str, made: Mapping[str, onnx.NodeProto], read: Readers) -> str:
    """The result of a convolution that `name` has the rounded values of, if it is read for nothing else; else ""."""
    for operator in ("DequantizeLinear", "QuantizeLinear"):
        if name not in made or made[name].op_type != operator:
            return ""
        name = made[name].input[0]
        if len(read[name]) != 1:
            return ""
    return name if name in made and made[name].op_type == "Conv" else ""


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
