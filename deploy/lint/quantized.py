"""Rules about QuantizeLinear (Q) and DequantizeLinear (DQ)."""

from collections.abc import Callable, Iterator

import numpy as np

from deploy.lint.finding import TENSORRT, Finding
from deploy.lint.graph import PRODUCTS, Graph, Node
from deploy.lint.pairs import (
    CLAMPS,
    INT8_OPS,
    MOVES,
    activations,
    is_dequantized,
    is_weight,
    obstacle,
    origin,
    quantized_type,
    represented,
    runs_in_int8,
    zero_point,
)

RANGE = (1e-5, 1e5)
"""Plausible range of the largest magnitude of an activation, in a network with normalized inputs."""
PICKS = ("DepthToSpace", "MaxPool", "Slice")
SMALL = 0.01
"""A convolution with less than this share of the multiply-accumulates is not worth a warning."""


def zero_points(graph: Graph, target: str) -> Iterator[Finding]:
    """TensorRT quantizes symmetrically. Source: onnx-tensorrt docs/operators.md (zero points must be 0); observed:
    "Non-zero zero point is not supported"; a uint8 constant: "Found unsupported input type of UINT8"; other uint8 with
    zero point 0: "Defaulting to INT8 instead".
    """
    if target not in TENSORRT:
        return
    for node in graph.of("QuantizeLinear", "DequantizeLinear"):
        if _repeats(graph, node):
            continue
        kind, zero = quantized_type(graph, node), zero_point(graph, node)
        remedy = "quantize symmetrically: int8 with zero point 0 (model.int8.onnx, not model.int8-cpu.onnx)"
        if kind == "uint8" and node.op == "DequantizeLinear" and node.inputs[0] in graph.constants:
            message = "the weights are uint8, and TensorRT's parser reads only int8 ones"
            yield Finding("error", "uint8-weights", str(node), message, remedy)
        elif zero is not None and zero.any():
            message = f"the zero point is {_brief(zero)}, and TensorRT's parser takes only 0"
            yield Finding("error", "zero-point", str(node), message, remedy)
        elif kind == "uint8":
            message = "TensorRT reads uint8 with zero point 0 as int8: values above 127 × scale are cut off"
            yield Finding("warning", "uint8-range", str(node), message, remedy)


def int32_bias(graph: Graph, target: str) -> Iterator[Finding]:
    """TensorRT cannot dequantize int32. Observed: "input has type Int32 but must have type FP8, … or UInt8"."""
    for node in graph.of("DequantizeLinear"):
        if target in TENSORRT and quantized_type(graph, node) == "int32":
            message = "the bias is quantized to int32, which TensorRT's parser refuses"
            remedy = "leave biases in float (onnxruntime.quantization: QuantizeBias=False)"
            yield Finding("error", "int32-bias", str(node), message, remedy)


def scales(graph: Graph, target: str) -> Iterator[Finding]:
    """A scale is a positive, finite number. Source: the ONNX specification of QuantizeLinear; observed: TensorRT-RTX
    reports "Scale coefficients must all be positive" for 0, -1 and NaN, but accepts infinity; CPUs accept anything.
    """
    for node in graph.of("QuantizeLinear", "DequantizeLinear"):
        scale = graph.value(node.inputs[1])
        if scale is None or _repeats(graph, node):
            continue
        remedy = "calibrate again; give a channel of zeros the scale 1"
        wrong = scale[~((scale > 0) & np.isfinite(scale))]
        if wrong.size:
            refused = target in TENSORRT and not (wrong > 0).all()
            message = f"the scale {_brief(wrong)} is not a positive number, so the result is not one either"
            yield Finding("error" if refused else "warning", "bad-scale", str(node), message, remedy)


def activation_ranges(graph: Graph, _: str) -> Iterator[Finding]:
    """A calibrated range far from 1 comes from an untouched observer, raw inputs or a diverged network."""
    for node in activations(graph):
        span = represented(graph, node)
        top = max(map(abs, span)) if span else 1.0
        if np.isfinite(top) and top > 0 and not RANGE[0] <= top <= RANGE[1]:
            message = f"the calibrated range ends at {top:.3g}, which is implausible for an activation"
            remedy = "look at the calibration data and at this layer's output"
            yield Finding("warning", "absurd-range", str(node), message, remedy)


def signed_activations(graph: Graph, target: str) -> Iterator[Finding]:
    """ONNX Runtime on a CPU is 2 times slower with int8 activations than with uint8 ones. Source: our measurements."""
    signed = [node for node in activations(graph) if quantized_type(graph, node) == "int8"]
    if signed and target == "onnxruntime":
        message = f"{len(signed)} activations are int8; ONNX Runtime's CPU kernels are made for uint8, twice as fast"
        remedy = "give this target model.int8-cpu.onnx: the same grid as uint8"
        yield Finding("warning", "int8-activations", str(signed[0]), message, remedy)


def float_islands(graph: Graph, target: str) -> Iterator[Finding]:
    """Operators with INT8 inputs that ONNX Runtime still runs in float, see `pairs.obstacle`. Source: its optimized
    models; our measurements (one ReLU left in float can cost all the speed that INT8 gains).
    """
    remedies = {
        "clamp-in-float": "give tensors that are never negative the zero point 0 of uint8",
        "shared-int8": "give this target model.int8-cpu.onnx",
        "unquantized-output": "quantize its output, and let every reader read the DQ",
    }
    for node in graph.of("Conv", "Add") if target == "onnxruntime" else ():
        inputs_int8 = all(is_dequantized(graph, name, target) for name in node.inputs[:2])
        if not inputs_int8 or (found := obstacle(graph, node)) is None:
            continue
        share = graph.share(node) if node.op == "Conv" else 0.0
        message = f"has INT8 inputs but runs in float: {found.text}"
        message += f" ({share:.1%} of the multiply-accumulates)" if node.op == "Conv" else ""
        level = "note" if found.rule == "unquantized-output" and share < SMALL else "warning"
        yield Finding(level, found.rule, str(node), message, remedies[found.rule])


def half_quantized(graph: Graph, target: str) -> Iterator[Finding]:
    """A convolution runs in INT8 only if both data and weights are quantized. Source: NVIDIA, "Explicit Quantization";
    observed in all three compilers.
    """
    for conv in graph.of("Conv", "ConvTranspose"):
        data, weights = (is_dequantized(graph, name, target) for name in conv.inputs[:2])
        if data != weights:
            has, lacks = ("data", "weights") if data else ("weights", "data")
            message = f"the {has} are quantized but the {lacks} are not, so it runs in float"
            remedy = f"quantize the {lacks} too, or leave both in float"
            yield Finding("warning", "half-quantized", str(conv), message, remedy)


def float32_products(graph: Graph, target: str) -> Iterator[Finding]:
    """What is not INT8 should be float16: typed networks run what the file says. Source: NVIDIA, "Strongly Typed
    Networks"; users measured INT8 + FP32 slower than FP16 alone (NVIDIA/TensorRT issue 3762).
    """
    if target not in TENSORRT or next(activations(graph), None) is None:
        return
    for node in graph.of(*PRODUCTS):
        if graph.types.get(node.outputs[0]) == "float32" and not runs_in_int8(graph, node, target):
            message = "runs in float32 beside INT8, where float16 would be faster"
            remedy = "make what is not INT8 float16: make the INT8 model again (--precision int8 --redo)"
            yield Finding("warning", "float32-product", str(node), message, remedy)


def unfused_pairs(graph: Graph, target: str) -> Iterator[Finding]:
    """Q and DQ cost accuracy and time where no operator next to them runs in INT8. Source: NVIDIA, "Explicit
    Quantization" (Q/DQ placement). Operators that select values (PICKS) between two pairs on the same grid do run in
    INT8: observed, Int8 → Int8 in TensorRT-RTX and uint8 → uint8 in ONNX Runtime. Nor do clamps between two such pairs
    round twice or take a layer more (observed in TensorRT-RTX), and a convolution that writes INT8 for a function in
    float before the next pair writes a quarter of the bytes.
    """
    remedy = "remove this pair"
    for node in graph.of("QuantizeLinear", "DequantizeLinear"):
        name = node.outputs[0]
        if not graph.readers(name) and not graph.leaves(name):
            yield Finding("warning", "unfused-pair", str(node), "nothing reads its output", remedy)
        elif graph.leaves(name) and node.op == "QuantizeLinear":
            continue
        elif node.op == "QuantizeLinear" and not _reaches(graph, name, _computes_integers, MOVES):
            message = "is not followed by a DequantizeLinear, so no compiler treats it as a pair"
            yield Finding("warning", "unfused-pair", str(node), message, "put Q and DQ in pairs")
        elif node.op == "DequantizeLinear" and not _reaches(graph, name, _uses_int8, MOVES | CLAMPS):
            if is_weight(graph, node) or (target not in TENSORRT and _made_in_int8(graph, node, target)):
                continue
            made = _made_in_int8(graph, node, target)
            if _picks_in_int8(graph, node) or (made and _feeds_a_function(graph, node)):
                continue
            message = "rounds to 8 bits, and nothing after it computes in INT8"
            level = "note" if made else "warning"
            yield Finding(level, "unfused-pair", str(node), message, remedy)


def scale_axes(graph: Graph, _: str) -> Iterator[Finding]:
    """Scales per channel belong to the outputs of a product: a sum over inputs with different scales is no integer.

    Source: NVIDIA, "Working with Quantized Types"; the ONNX specifications of the operators.
    """
    for node in graph.of(*PRODUCTS):
        source = graph.producer.get(node.inputs[1])
        scale = graph.value(source.inputs[1]) if source and source.op == "DequantizeLinear" else None
        rank = len(graph.shape(node.inputs[1]))
        if source is None or scale is None or scale.size == 1 or not rank:
            continue
        axis = source.attributes.get("axis", 1) % rank
        outputs = {"Conv": 0, "Gemm": 1 - node.attributes.get("transB", 0)}.get(node.op, 1)
        if axis != outputs:
            message = (
                f"its weights have a scale for each index of axis {axis}; its outputs are axis {outputs}"
            )
            yield Finding(
                "warning", "scale-axis", str(node), message, f"quantize the weights along axis {outputs}"
            )


def per_tensor_weights(graph: Graph, _: str) -> Iterator[Finding]:
    """One scale per output channel keeps accuracy at no cost. Source: NVIDIA, "Working with Quantized Types"."""
    for conv in graph.of("Conv"):
        node = graph.producer.get(conv.inputs[1])
        scale = graph.value(node.inputs[1]) if node and node.op == "DequantizeLinear" else None
        if scale is not None and scale.size == 1 and graph.shape(conv.inputs[1])[:1] not in ((), (1,)):
            message = "all output channels share one weight scale, which costs accuracy"
            yield Finding("note", "per-tensor-weights", str(conv), message, "quantize weights per channel")


RULES = (
    zero_points,
    int32_bias,
    scales,
    activation_ranges,
    signed_activations,
    float_islands,
    half_quantized,
    float32_products,
    unfused_pairs,
    scale_axes,
    per_tensor_weights,
)


def _quantizer(graph: Graph, node: Node) -> Node | None:
    """The Q whose output this node reads, if it does."""
    source = graph.producer.get(node.inputs[0])
    return source if source and source.op == "QuantizeLinear" else None


def _repeats(graph: Graph, node: Node) -> bool:
    """Whether this is the DQ of a pair and has the scale and zero point of its Q."""
    source = _quantizer(graph, node)
    return source is not None and source.inputs[1:] == node.inputs[1:]


def _computes_integers(node: Node) -> bool:
    # Compared by name alone: ONNX Runtime has more such operators in its own domain, such as com.microsoft:QLinearAdd.
    return node.op == "DequantizeLinear" or node.type.startswith("QLinear") or node.type.endswith("Integer")


def _uses_int8(node: Node) -> bool:
    return node.op in INT8_OPS


def _reaches(graph: Graph, name: str, goal: Callable[[Node], bool], through: frozenset[str]) -> bool:
    """Whether a path from the tensor through operators of the types `through` ends at an operator that meets `goal`."""
    return any(
        goal(reader) or (reader.op in through and _reaches(graph, reader.outputs[0], goal, through))
        for reader in graph.readers(name)
    )


def _made_in_int8(graph: Graph, dequantize: Node, target: str) -> bool:
    """Whether the output of this DQ was computed by an operator with INT8 inputs, which can therefore write INT8."""
    source = origin(graph, dequantize.outputs[0])
    return source is not None and source.op in INT8_OPS and is_dequantized(graph, source.inputs[0], target)


def _picks_in_int8(graph: Graph, dequantize: Node) -> bool:
    """Whether the output of this DQ goes to one of PICKS or CLAMPS whose result has a Q on the same grid."""

    def is_same_grid(node: Node) -> bool:
        return node.op == "QuantizeLinear" and all(
            map(np.array_equal, _grid(graph, node), _grid(graph, dequantize))
        )

    def picks(node: Node) -> bool:
        return node.op in (*PICKS, *CLAMPS) and _reaches(graph, node.outputs[0], is_same_grid, MOVES)

    return _reaches(graph, dequantize.outputs[0], picks, MOVES)


def _feeds_a_function(graph: Graph, dequantize: Node) -> bool:
    """Whether the output of this DQ goes through a function in float, such as HardSwish, to another Q."""
    waiting, seen = [(dequantize.outputs[0], False)], set[tuple[str, bool]]()
    while waiting:
        name, computed = place = waiting.pop()
        if place in seen:
            continue
        seen.add(place)
        for reader in graph.readers(name):
            if reader.op == "QuantizeLinear" and computed:
                return True
            if reader.op not in INT8_OPS and reader.op != "QuantizeLinear":
                computes = computed or reader.op not in MOVES | CLAMPS | set(PICKS)
                waiting += [(output, computes) for output in reader.outputs]
    return False


def _grid(graph: Graph, node: Node) -> tuple[str | np.ndarray, ...]:
    """The grid of a Q or DQ: type, scale, zero point. A computed scale or zero point is represented by its name."""
    scale, zero = graph.value(node.inputs[1]), zero_point(graph, node)
    names = [*node.inputs[1:], ""]
    return (
        quantized_type(graph, node),
        names[0] if scale is None else scale,
        names[1] if zero is None else zero,
    )


def _brief(values: np.ndarray) -> str:
    flat = np.unique(values)
    return f"{flat[0]:g}" if flat.size == 1 else f"{flat[0]:g} … {flat[-1]:g}"
