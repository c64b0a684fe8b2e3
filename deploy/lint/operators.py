"""Rules about operators, their attributes and the types of tensors."""

from collections.abc import Callable, Iterator

import numpy as np

from deploy.lint.finding import CPU, TENSORRT, Finding
from deploy.lint.graph import Graph, Node


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Operators that ONNX defines and a target refuses. onnx-tensorrt docs/operators.md of TensorRT 10.15, and
# `OnnxParser.supports_operator` of tensorrt-rtx 1.7.1, with which the tests compare this list.
TENSORRT_LACKS = _names("""
    AffineGrid Bernoulli BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor CenterCropPad Col2Im
    Compress ConcatFromSequence ConvInteger CumProd DFT Det DynamicQuantizeLinear ImageDecoder MatMulInteger
    MaxRoiPool MaxUnpool MelWeightMatrix Multinomial NegativeLogLikelihoodLoss Optional OptionalGetElement
    OptionalHasElement QLinearConv QLinearMatMul RegexFullMatch SequenceAt SequenceConstruct SequenceEmpty
    SequenceErase SequenceInsert SequenceLength SequenceMap SoftmaxCrossEntropyLoss SplitToSequence
    StringConcat StringNormalizer StringSplit SwiGLU TfIdfVectorizer Unique
""")
# Operators that TensorRT implements as plugins, which the wheel of tensorrt-rtx 1.7.1 lacks (observed).
RTX_LACKS = TENSORRT_LACKS | {"DeformConv", "NonMaxSuppression", "NonZero", "RoiAlign"}
# Operators for which the ONNX reader of openvino 2026.4.1 reports "No conversion rule found" (observed).
OPENVINO_LACKS = _names("""
    BitCast CausalConvWithState ConcatFromSequence CumProd DeformConv Det ImageDecoder LinearAttention
    MaxUnpool MelWeightMatrix Optional OptionalGetElement OptionalHasElement RegexFullMatch SequenceConstruct
    SequenceEmpty SequenceErase SequenceInsert SequenceLength SplitToSequence StringConcat StringNormalizer
    StringSplit SwiGLU TensorScatter TfIdfVectorizer
""")
LACKS: dict[str, frozenset[str]] = {
    **dict.fromkeys(TENSORRT, TENSORRT_LACKS),
    "tensorrt-rtx": RTX_LACKS,
    "openvino": OPENVINO_LACKS,
    "onnxruntime": frozenset(),
}
# The TensorRT 10 release that added an operator after 10.3 (JetPack 6). Source: onnx-tensorrt docs/Changelog.md.
SINCE = {
    **dict.fromkeys(("BlackmanWindow", "HammingWindow", "HannWindow"), "10.4"),
    "STFT": "10.5",
    "Attention": "10.14",
    **dict.fromkeys(("RMSNormalization", "RotaryEmbedding", "TensorScatter"), "10.15"),
}
DOMAINS: dict[str, tuple[str, ...]] = {
    "onnxruntime": ("ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"),
    "openvino": ("com.microsoft", "org.openvinotoolkit"),
}
"""Operator domains that a CPU backend implements besides the standard one."""
TENSORRT_EXTRAS = ("ImageScaler", "ParametricSoftplus", "ScaledTanh")
"""Operators that TensorRT's parser knows besides today's ONNX operators and its own TRT_…"""
TENSORRT_TYPES = _names("""
    float32 float16 bfloat16 float64 int8 uint8 int32 int64 bool int4 float8_e4m3fn float4_e2m1fn
""")
"""Element types that TensorRT's parser knows: docs/operators.md of 10.15; observed: "Unsupported ONNX data type"."""


def operators(graph: Graph, target: str) -> Iterator[Finding]:
    """Operators that the target does not implement. Sources: the comments on the lists above. TensorRT's parser looks
    at the name alone and searches for a plugin of an unknown name: observed, "Plugin not found".
    """
    for node in graph.nodes:
        if not _is_known(node, target):
            message = f"{node.domain or 'ai.onnx'}:{node.type} is not an operator that {target} implements"
            remedy = "export it as standard operators, or as a local function"
            yield Finding("error", "unknown-operator", str(node), message, remedy)
        elif node.type in LACKS[target] and (node.is_standard or target in TENSORRT):
            message = f"{target} has no {node.type}"
            yield Finding(
                "error", "unsupported-operator", str(node), message, "replace it by other operators"
            )
        elif node.type in SINCE and target in ("tensorrt-10", "dla"):
            message = f"needs TensorRT {SINCE[node.type]}; JetPack 6 has 10.3"
            yield Finding("warning", "recent-operator", str(node), message, "replace it by other operators")


def attributes(graph: Graph, target: str) -> Iterator[Finding]:
    """Settings of an operator that the target refuses. Source: onnx-tensorrt docs/operators.md of TensorRT 10.15 (the
    column "Restrictions"); each observed in tensorrt-rtx 1.7.1. OpenVINO: observed in 2026.4.1.
    """
    for node in graph.nodes:
        check = REFUSALS.get(target, {}).get(node.op)
        if check and (message := check(graph, node)):
            remedy = "choose another setting when exporting, or compute it with other operators"
            yield Finding("error", "unsupported-setting", str(node), message, remedy)


def uint8_tensors(graph: Graph, target: str) -> Iterator[Finding]:
    """TensorRT supports uint8 only as an input that is cast at once, and as an output that was just cast. Source:
    docs/operators.md ("UINT8 is only supported as network input or output tensor types"); observed with a Transpose.
    """
    if target not in TENSORRT:
        return
    remedy = "cast to float first, permute after; cast the result to uint8 last"
    for name in graph.inputs:
        readers = graph.readers(name) if graph.types.get(name) == "uint8" else []
        for node in readers:
            if node.type not in ("Cast", "CastLike", "Equal", "Shape", "Size"):
                message = f"reads the uint8 input {name}, which TensorRT only casts"
                yield Finding("error", "uint8-tensor", str(node), message, remedy)
    for node in graph.of("Cast", "CastLike"):
        name = node.outputs[0]
        if graph.types.get(name) == "uint8" and not graph.leaves(name):
            message = (
                "its uint8 result is not an output of the model, and TensorRT has no uint8 inside a network"
            )
            yield Finding("error", "uint8-tensor", str(node), message, remedy)


def types(graph: Graph, target: str) -> Iterator[Finding]:
    """Element types that a target does not support or runs slowly. Sources: docs/operators.md; observed: ONNX Runtime's
    CPU backend has no float64 convolution, and inserts casts to float32 around a float16 one.
    """
    on_tensorrt = target in TENSORRT
    for name, kind in graph.types.items():
        where = f"tensor {name}"
        if on_tensorrt and kind not in TENSORRT_TYPES:
            message = f"is {kind}, which TensorRT's parser refuses"
            yield Finding("error", "unsupported-type", where, message, "export it as int32 or float32")
        elif kind == "float64":
            message = f"is float64, which {'TensorRT clamps to float32' if on_tensorrt else 'is slow'}"
            yield Finding("warning", "float64-type", where, message, "export the network in float32")
    for node in graph.of("Conv", "ConvTranspose") if target == "onnxruntime" else ():
        kind = graph.types.get(node.outputs[0])
        if kind == "float64":
            message = "ONNX Runtime's CPU backend has no float64 convolution"
            yield Finding("error", "float64-type", str(node), message, "export the network in float32")
        elif kind == "float16":
            message = "is float16, and ONNX Runtime casts to float32 and back around it on x86"
            yield Finding("warning", "float16-on-cpu", str(node), message, "give this target model.onnx")


def constants(graph: Graph, target: str) -> Iterator[Finding]:
    """Constants that are not finite, exceed FP16 (65504), or do not fit int32. Sources: IEEE 754; docs/operators.md:
    TensorRT 8 clamped int64 to ±INT_MAX, 9 and later compute in int64.
    """
    limits = np.iinfo(np.int32)
    for name in graph.constants:
        value = graph.value(name)
        kind = "" if value is None else value.dtype.name
        where = f"tensor {name}"
        if value is None or not value.size or not graph.readers(name):
            continue
        if kind in ("float16", "float32") and (
            np.isnan(value).any() or (kind == "float16" and np.isinf(value).any())
        ):
            message = f"holds {kind} values that are not finite, so the result will not be either"
            yield Finding(
                "warning", "not-finite", where, message, "keep this constant in float32, or train again"
            )
        elif kind == "float32" and target in TENSORRT and 65504 < np.abs(value).max() < np.inf:
            message = f"reaches {np.abs(value).max():.3g}, which is infinite in FP16"
            yield Finding(
                "note", "fp16-overflow", where, message, "leave its reader in float32 in an FP16 model"
            )
        elif kind == "int64" and target not in CPU and (value.min() < limits.min or value.max() > limits.max):
            if all(node.op == "Slice" for node in graph.readers(name)):
                continue  # "to the end"
            message = "does not fit int32, so TensorRT computes its readers in int64 (version 8 clamps it)"
            yield Finding("note", "int64-range", where, message, "use values within int32")


RULES = (operators, attributes, uint8_tensors, types, constants)


def _is_known(node: Node, target: str) -> bool:
    if target in TENSORRT:
        return node.has_standard_name or node.type in TENSORRT_EXTRAS or node.type.startswith("TRT_")
    return node.is_standard or node.domain in DOMAINS[target]


def _resize(graph: Graph, node: Node) -> str | None:
    if node.attributes.get("antialias", 0):
        return "antialias=1: TensorRT does not smooth"
    if (policy := node.attributes.get("keep_aspect_ratio_policy", "stretch")) != "stretch":
        return f"keep_aspect_ratio_policy={policy}: TensorRT only stretches"
    return _resize_placing(graph, node)


def _resize_placing(_: Graph, node: Node) -> str | None:
    placing = node.attributes.get("coordinate_transformation_mode", "half_pixel")
    known = placing not in ("half_pixel_symmetric", "tf_crop_and_resize")
    return None if known else f"coordinate_transformation_mode={placing} is not implemented"


def _pool(graph: Graph, node: Node) -> str | None:
    if any(step != 1 for step in node.attributes.get("dilations", [])):
        return f"dilations={node.attributes['dilations']}: TensorRT pools without dilation"
    return _one_output(graph, node)


def _one_output(_: Graph, node: Node) -> str | None:
    return "TensorRT computes its first output only" if any(node.outputs[1:]) else None


def _scatter(_: Graph, node: Node) -> str | None:
    reduction = node.attributes.get("reduction", "none")
    return None if reduction == "none" else f"reduction={reduction}: TensorRT only replaces"


def _batch_norm(_: Graph, node: Node) -> str | None:
    return "training_mode=1: TensorRT only infers" if node.attributes.get("training_mode", 0) else None


def _dropout(graph: Graph, node: Node) -> str | None:
    training = graph.value(node.inputs[2]) if len(node.inputs) > 2 else None
    return (
        "its training mode is on: TensorRT only infers" if training is not None and training.any() else None
    )


def _top(graph: Graph, node: Node) -> str | None:
    count = graph.value(node.inputs[1]) if len(node.inputs) > 1 else None
    return "K is above 3840" if count is not None and (count > 3840).any() else None


ON_TENSORRT: dict[str, Callable[[Graph, Node], str | None]] = {
    "AveragePool": _pool,
    "BatchNormalization": _batch_norm,
    "Dropout": _dropout,
    "LayerNormalization": _one_output,
    "LpPool": _pool,
    "MaxPool": _pool,
    "Resize": _resize,
    "ScatterND": _scatter,
    "TopK": _top,
}
REFUSALS = dict.fromkeys(TENSORRT, ON_TENSORRT) | {"openvino": {"Resize": _resize_placing}}
"""By target and operator: returns the setting that the target refuses; None where it accepts all."""
