"""Rules about Q and DQ around residual sums."""

from collections.abc import Iterator

from deploy.lint.finding import TENSORRT, Finding
from deploy.lint.graph import Graph
from deploy.lint.pairs import fused_convolution, is_dequantized


def residuals(graph: Graph, target: str) -> Iterator[Finding]:
    """One term of a residual Add should be INT8 in TensorRT and both in ONNX Runtime; otherwise the skip connection
    stays in float. Source: NVIDIA's quantization toolkit, "Add Custom QDQ Insertion Case" (ResNet); observed:
    TensorRT-RTX then stores the skip as both Int8 and Float.
    """
    for add in graph.of("Add"):
        data = [name for name in add.inputs if name not in graph.constants]
        plain = [name for name in data if not is_dequantized(graph, name, target)]
        skips = [name for name in plain if any(node.op == "QuantizeLinear" for node in graph.readers(name))]
        if len(data) == 2 and skips:
            message = f"reads {skips[0]} before its QuantizeLinear, so that tensor is also stored in float"
            yield Finding("warning", "float-residual", str(add), message, "let it read the DQ of that tensor")
        elif len(data) == 2 and len(plain) == 1 and target == "onnxruntime":
            message = f"one input is INT8 and {plain[0]} is not, so it runs in float"
            remedy = f"quantize {plain[0]} too"
            yield Finding("warning", "float-residual", str(add), message, remedy)


def unfused_residuals(graph: Graph, target: str) -> Iterator[Finding]:
    """A pair between a Conv and a residual Add keeps TensorRT from computing both in one kernel. Source: NVIDIA's
    quantization toolkit, "Add Custom QDQ Insertion Case"; Model-Optimizer pull request 425. Observed in TensorRT-RTX
    with one weight scale a tensor: the convolution then reads the skip as a second input, with a pair it does not.
    """
    for add in graph.of("Add") if target in TENSORRT else ():
        rounded = [name for name in add.inputs if _rounds_a_convolution(graph, name)]
        if rounded and fused_convolution(graph, add, target) is None:
            message = f"reads the convolution before {rounded[0]} through Q and DQ, so the two do not fuse"
            remedy = "remove the pair between a Conv and an Add (from one of two Convs); keep it on the skip"
            yield Finding("warning", "unfused-residual", str(add), message, remedy)


RULES = (residuals, unfused_residuals)


def _rounds_a_convolution(graph: Graph, name: str) -> bool:
    """Whether this tensor is the result of a Conv after Q and DQ, and nothing else reads either."""
    for op in ("DequantizeLinear", "QuantizeLinear"):
        node = graph.producer.get(name)
        if node is None or node.op != op or len(graph.readers(name)) != 1:
            return False
        name = node.inputs[0]
    conv = graph.producer.get(name)
    return conv is not None and conv.op == "Conv" and len(graph.readers(name)) == 1
