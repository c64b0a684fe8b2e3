"""What a Jetson's deep learning accelerator (DLA) cannot run.

Source, unless a rule says otherwise: NVIDIA, "DLA Supported Layers and Restrictions" (TensorRT developer guide), and
the operator matrix of github.com/NVIDIA/Deep-Learning-Accelerator-SW. None of this was tried on a real DLA.
TensorRT 10 to 10.7 and 11.4.1 (JetPack 7.2.2) drive the DLA of a Jetson Orin; 11.0 to 11.3 do not ("Working with DLA").
"""

from collections.abc import Callable, Iterator, Sequence
from math import ceil

from deploy.lint.finding import Finding
from deploy.lint.graph import Graph, Node
from deploy.lint.pairs import clip_bounds, is_dequantized

Check = Callable[[Graph, Node], str | None]
"""Returns why the DLA cannot run this node; None if it can."""
SHAPE_OPS = ("Constant", "ConstantOfShape", "Range", "Shape", "Size", "QuantizeLinear", "DequantizeLinear")


def layers(graph: Graph, target: str) -> Iterator[Finding]:
    """Layers outside the DLA's list or limits; TensorRT refuses them without GPU fallback."""
    for node in graph.nodes if target == "dla" else ():
        on_integers = all(graph.types.get(name) == "int64" for name in filter(None, node.inputs))
        if node.op in SHAPE_OPS or (on_integers and node.op != "Cast"):
            continue
        check = LAYERS.get(node.op, _unknown)
        if reason := check(graph, node) or _too_large(graph, node):
            message = f"{reason}, so it runs on the GPU if fallback is allowed"
            yield Finding("warning", "dla-layer", str(node), message, "allow GPU fallback, or replace it")


def precision(graph: Graph, target: str) -> Iterator[Finding]:
    """The DLA computes in FP16, or in INT8 by the scales of implicit quantization, not by Q and DQ. Sources: the matrix
    named above (DequantizeLinear: "can be collapsed to INT8 scaling factor"); github.com/NVIDIA/Model-Optimizer #1661
    ("DLA still only supports IQ"); "Strongly Typed Networks for DLA" (an FP32 ONNX stays FP32).
    """
    if target != "dla":
        return
    if node := next(graph.of("QuantizeLinear", "DequantizeLinear"), None):
        message = "the DLA takes INT8 scales, not Q and DQ, so the operators between them run on the GPU"
        remedy = "use FP16 on the DLA, or turn Q/DQ into a calibration cache with NVIDIA's qdq-translator"
        yield Finding("warning", "dla-explicit-int8", str(node), message, remedy)
    elif conv := next(
        (conv for conv in graph.of("Conv") if graph.types.get(conv.outputs[0]) == "float32"), None
    ):
        message = "is float32, and the DLA computes in FP16"
        remedy = "give this target model.fp16.onnx"
        yield Finding("warning", "dla-float32", str(conv), message, remedy)


RULES = (layers, precision)


def _unknown(_: Graph, node: Node) -> str:
    return f"{node.op} is not a layer of the DLA"


def _too_large(graph: Graph, node: Node) -> str | None:
    for name in (*node.inputs[:1], *node.outputs):
        batch, *sizes = [size if isinstance(size, int) else 1 for size in graph.shape(name)] or [1]
        if batch > 4096 or max(sizes, default=1) > 8192:
            return f"{batch} images with sides up to {max(sizes, default=1)} are above 4096 and 8192"
    return None


def _within(node: Node, limits: dict[str, tuple[int, int]]) -> str | None:
    """Why the attributes of a node exceed their ranges; None if they do not. ONNX's defaults are within all of them."""
    for name, (low, high) in limits.items():
        values = node.attributes.get(name, [])
        if any(not low <= value <= high for value in (values if isinstance(values, list) else [values])):
            return f"{name} {values} is not within {low}…{high}"
    return None


def _convolution(graph: Graph, node: Node) -> str | None:
    weight = graph.shape(node.inputs[1])
    if len(weight) != 4 or not all(isinstance(size, int) for size in weight):
        return "only a 2-D convolution with constant weights is a layer of the DLA"
    limits = {
        "kernel_shape": (1, 32),
        "pads": (0, 31),
        "strides": (1, 8),
        "dilations": (1, 32),
        "group": (1, 8192),
    }
    if max(map(int, weight[2:])) > 32:
        return f"kernel {weight[2:]} is not within 1…32"
    return _within(node, limits) or _convolution_buffer(graph, node, [int(size) for size in weight])


def _convolution_buffer(graph: Graph, node: Node, weight: Sequence[int]) -> str | None:
    """One kernel and the rows it reads must fit the convolution buffer: 16 banks of 32 KiB."""
    shape = graph.shape(node.inputs[0])
    if len(shape) != 4 or not isinstance(shape[1], int) or not isinstance(shape[3], int):
        return None
    _, _, height, width = weight
    bytes_each = 1 if is_dequantized(graph, node.inputs[0], "dla") else 2
    kernel = ceil(shape[1] * height * width * bytes_each / 128) * 128
    slice_entries = ceil(ceil(shape[1] * bytes_each / 32) * shape[3] / 4)
    rows = (height - 1) * next(iter(node.attributes.get("dilations", [])), 1) + 1
    banks = ceil(kernel / 32768) + ceil(slice_entries * rows / 256)
    return f"needs {banks} of 16 banks of the convolution buffer" if banks > 16 else None


def _deconvolution(graph: Graph, node: Node) -> str | None:
    kernel = graph.shape(node.inputs[1])[2:]
    if any(isinstance(size, int) and size > 32 for size in kernel):
        return f"kernel {kernel} is not within 1…32"
    return _within(node, {"strides": (1, 32), "pads": (0, 0), "group": (1, 1), "dilations": (1, 1)})


def _pooling(_: Graph, node: Node) -> str | None:
    return _within(node, {"kernel_shape": (1, 8), "pads": (0, 7), "strides": (1, 16)})


def _clip(graph: Graph, node: Node) -> str | None:
    low, high = clip_bounds(graph, node) or (1.0, 0.0)
    return None if low == 0 and 1 <= high <= 127 else "only clips from 0 to 1…127"


def _concat(graph: Graph, node: Node) -> str | None:
    rank = len(graph.shape(node.outputs[0]))
    return None if rank == 4 and node.attributes.get("axis") in (1, -3) else "only concatenates channels"


def _resize(graph: Graph, node: Node) -> str | None:
    mode = node.attributes.get("mode", "nearest")
    largest = {"nearest": 32, "linear": 4}.get(mode, 0)
    placing = node.attributes.get("coordinate_transformation_mode", "half_pixel")
    if mode == "linear" and placing != "half_pixel":  # seen by users: forums.developer.nvidia.com, 219158
        return f"resizes linearly only with half_pixel, not {placing}"
    factors = _factors(graph, node)
    if factors is None or any(factor not in range(1, largest + 1) for factor in factors):
        return f"resizes ({mode}) only by constant whole factors up to {largest}"
    return None


def _factors(graph: Graph, node: Node) -> list[float] | None:
    # Resize had no region of interest before opset 11, and Upsample never had one.
    scales = graph.value(node.inputs[min(2, len(node.inputs) - 1)])
    if scales is not None and scales.size:
        return [float(scale) for scale in scales]
    before, after = graph.shape(node.inputs[0])[1:], graph.shape(node.outputs[0])[1:]
    if len(before) != 3 or len(after) != 3 or not all(isinstance(size, int) for size in (*before, *after)):
        return None
    return [int(new) / int(old) for old, new in zip(before, after, strict=True) if old]


def _shuffle(graph: Graph, node: Node) -> str | None:
    before, after = graph.shape(node.inputs[0]), graph.shape(node.outputs[0])
    keeps_batch = node.attributes.get("perm", [0])[:1] == [0]
    return (
        None if len(before) == len(after) == 4 and keeps_batch else "only moves 4-D tensors within an image"
    )


def _softmax(graph: Graph, node: Node) -> str | None:
    shape = graph.shape(node.inputs[0])
    axis = node.attributes.get("axis", -1) % max(len(shape), 1)
    others = [size for index, size in enumerate(shape) if index not in (0, axis)]
    return None if shape and all(size == 1 for size in others) else "only takes a softmax of vectors"


def _times_constant(graph: Graph, node: Node) -> str | None:
    return None if node.inputs[1] in graph.constants else "only multiplies by a constant second matrix"


def _prelu(graph: Graph, node: Node) -> str | None:
    return None if node.inputs[1] in graph.constants else "needs a constant slope"


def _lrn(_: Graph, node: Node) -> str | None:
    return _within(node, {"size": (3, 9)})


def _fits(_: Graph, __: Node) -> None:
    return None


LAYERS: dict[str, Check] = {
    "Conv": _convolution,
    "ConvTranspose": _deconvolution,
    **dict.fromkeys(("MaxPool", "AveragePool"), _pooling),
    **dict.fromkeys(("MatMul", "Gemm"), _times_constant),
    **dict.fromkeys(("Reshape", "Transpose"), _shuffle),
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    "Clip": _clip,
    "Concat": _concat,
    "LRN": _lrn,
    "PRelu": _prelu,
    "Softmax": _softmax,
    **dict.fromkeys(("Abs", "BatchNormalization", "LeakyRelu", "Relu", "Sigmoid", "Tanh"), _fits),
    **dict.fromkeys(("Add", "Max", "Min", "Mul", "Slice", "Split", "Sub", "Sum", "Equal"), _fits),
}
