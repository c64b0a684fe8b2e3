"""Rules about the file as a whole, and about sizes."""

from collections.abc import Iterator

from deploy.lint.finding import CPU, TENSORRT, Finding
from deploy.lint.graph import Graph, Node
from deploy.lint.pairs import runs_in_int8, zero_point

OPSETS: dict[str, tuple[int, int, str]] = {
    "tensorrt-10": (9, 20, "TensorRT 10.0"),
    "dla": (9, 20, "TensorRT 10.0"),
    "tensorrt-11": (9, 25, "TensorRT 11"),
    "tensorrt-rtx": (9, 25, "TensorRT 11"),
    "onnxruntime": (7, 21, "onnxruntime 1.20"),
}
"""Oldest and newest opset of the oldest release that we support. github.com/NVIDIA/TensorRT #4336 quotes "opset
9 to opset 20" of 10.0; NVIDIA, "ONNX Opset Guide": 9 to 25 of 11.x; onnxruntime 1.20.1 refuses 22 (observed)."""
IR_VERSION = 10
"""onnxruntime 1.20.1 refuses 11 (observed)."""
LARGE = 0.05
"""Channels are checked only for convolutions with at least this share of the multiply-accumulates."""
PROTOBUF_LIMIT = 2**31


def whole(graph: Graph, target: str) -> Iterator[Finding]:
    """Every tensor is computed before it is read, and the model has an output. Observed: TensorRT-RTX reports "Node
    input was not registered", or "Network must have at least one output" where ONNX Runtime loads.
    """
    known = {*graph.inputs, *graph.constants, *graph.producer, *graph.body_names}
    remedy = "export the model again"
    if not graph.outputs:
        level = "error" if target in TENSORRT else "warning"
        yield Finding(level, "no-outputs", "model", "has no outputs, so there is nothing to compute", remedy)
    for node in graph.nodes:
        for name in node.inputs:
            if name and name not in known:
                yield Finding(
                    "error", "missing-tensor", str(node), f"reads {name}, which nothing computes", remedy
                )
    for name in graph.outputs:
        if name not in known:
            yield Finding(
                "error", "missing-tensor", f"tensor {name}", "is an output that nothing computes", remedy
            )


def versions(graph: Graph, target: str) -> Iterator[Finding]:
    """Opset and IR version. Sources: see OPSETS. Observed: TensorRT's parser silently reads newer opsets; CPUs refuse a
    file without one.
    """
    oldest, newest, whose = OPSETS.get(target, (1, 99, ""))
    remedy = "export with opset 20"
    if graph.opset is None and any(node.is_standard for node in graph.nodes):
        level = "error" if target in CPU else "warning"
        yield Finding(
            level, "opset-version", "model", "does not name the opset that it was written for", remedy
        )
    elif graph.opset and not oldest <= graph.opset <= newest:
        message = f"opset {graph.opset} is outside {oldest}…{newest}, the range of {whose}"
        yield Finding("warning", "opset-version", "model", message, remedy)
    if graph.ir_version > IR_VERSION and target == "onnxruntime":
        message = (
            f"IR version {graph.ir_version} is above {IR_VERSION}, the newest that onnxruntime 1.20 reads"
        )
        yield Finding("warning", "ir-version", "model", message, f"write it as IR version {IR_VERSION}")


def external_data(graph: Graph, _: str) -> Iterator[Finding]:
    """External weights must be beside the model. Source: the ONNX specification (External Data); observed: all three
    compilers refuse such a file without them. One ONNX file holds at most 2 GiB (protobuf).
    """
    for name, location in graph.missing_data():
        message = f"its data are in {location or 'a file without a name'}, which is not beside the model"
        remedy = "copy that file too, or save the model in one file"
        yield Finding("error", "external-data", f"tensor {name}", message, remedy)
    if (size := graph.constant_bytes) >= PROTOBUF_LIMIT:
        message = f"has {size / 2**30:.1f} GiB of constants, more than one ONNX file can hold"
        remedy = "use a smaller network, or store the weights as external data beside the model"
        yield Finding("warning", "huge-model", "model", message, remedy)


def dynamic_sizes(graph: Graph, target: str) -> Iterator[Finding]:
    """Only the batch may vary: adaptive pooling is exported with kernels made for one size (other sizes had errors of
    0.08–0.14), and our engines and bundles are made for one size. Compilers accept such a file, edgedistill does not.
    The DLA also needs a fixed batch size ("DLA does not support dynamic dimensions").
    """
    for name in graph.inputs:
        shape = graph.shapes.get(name)
        if shape is None or any(isinstance(size, str) for size in shape[1:]):
            sizes = "×".join(map(str, shape)) if shape else "not given"
            message = f"its shape is {sizes}; only the batch may vary, because pooling kernels are made for one size"
            remedy = "export with fixed channels, height and width"
            yield Finding("error", "dynamic-size", f"tensor {name}", message, remedy)
        elif target == "dla" and isinstance(shape[0] if shape else 1, str):
            message = "the batch varies, and the DLA runs one batch size"
            remedy = "build with equal smallest, best and largest batch"
            yield Finding("note", "dynamic-batch", f"tensor {name}", message, remedy)


def strides(graph: Graph, _: str) -> Iterator[Finding]:
    """Sizes that a stride or a pooling bin does not divide. Source: our measurements (with the kernel ⌊in / out⌋, bins
    that do not divide the input had errors of 0.07–1.5).
    """
    noted = False
    for node in graph.of("Conv", "MaxPool", "AveragePool"):
        sizes, steps = graph.shape(node.inputs[0])[2:], node.attributes.get("strides", [])
        uneven = [
            (a, b) for a, b in zip(sizes, steps, strict=False) if isinstance(a, int) and b > 0 and a % b
        ]
        if not uneven:
            continue
        size, step = uneven[0]
        bins = node.op == "AveragePool" and steps == node.attributes.get("kernel_shape")
        if bins and not any(node.attributes.get("pads", [])):
            message = f"bins of {step} do not divide the {size} cells of its input, so part of the border is never read"
            remedy = "pool by constant matrices, as edgedistill exports it, or choose a size that divides"
            yield Finding("warning", "uneven-bins", str(node), message, remedy)
        elif not noted:
            noted = True
            message = (
                f"stride {step} does not divide the {size} cells of its input, so the grid is rounded up"
            )
            remedy = f"export at multiples of {_total_stride(graph, node)} pixels"
            yield Finding("note", "odd-size", str(node), message, remedy)


def channels(graph: Graph, target: str) -> Iterator[Finding]:
    """Large convolutions whose channels the target pads (sources: `_channel_unit`), and channels of zeros."""
    for conv in graph.of("Conv"):
        share, weight = graph.share(conv), graph.shape(conv.inputs[1])
        unit = _channel_unit(target, runs_in_int8(graph, conv, target))
        counts = [size for size in weight[:2] if isinstance(size, int)]
        is_plain = conv.attributes.get("group", 1) == 1 and min(counts, default=0) > 4  # not the first layer
        if is_plain and share >= LARGE and any(count % unit for count in counts):
            message = f"{counts[1]} channels in, {counts[0]} out: {target} pads them to multiples of {unit}"
            message += f" ({share:.1%} of the multiply-accumulates)"
            yield Finding("note", "odd-channels", str(conv), message, f"use multiples of {unit} channels")
        zeros = _zero_channels(graph, conv)
        if zeros > 0.5:
            message = f"{zeros:.0%} of its output channels have only zero weights"
            yield Finding(
                "note", "zero-channels", str(conv), message, "finish its training, or use a narrower network"
            )


RULES = (whole, versions, external_data, dynamic_sizes, strides, channels)


def _total_stride(graph: Graph, node: Node | None) -> int:
    """Input pixels per cell of the node's output, following each node's first input."""
    total = 1
    while node is not None:
        if node.op in ("Conv", "MaxPool", "AveragePool"):
            total *= max(node.attributes.get("strides", []), default=1)
        node = graph.producer.get(node.inputs[0]) if node.inputs else None
    return total


def _channel_unit(target: str, int8: bool) -> int:
    """The target pads the channels of a convolution to a multiple of this number.

    TensorRT: 16 bytes of a pixel (its vectorized formats, NVIDIA's "Tensor Core DL Performance Guide"). DLA: 32 bytes
    (kCHW32 for INT8, kCHW16 for FP16; "I/O Formats on DLA"). CPUs: 16 accumulators of a 512-bit vector.
    """
    if target in CPU:
        return 16
    return (32 if int8 else 16) if target == "dla" else (16 if int8 else 8)


def _zero_channels(graph: Graph, conv: Node) -> float:
    """The share of output channels without a weight other than 0."""
    node = graph.producer.get(conv.inputs[1])
    is_int8 = node is not None and node.op == "DequantizeLinear"
    value = graph.value(node.inputs[0] if node and is_int8 else conv.inputs[1])
    zero = zero_point(graph, node) if node and is_int8 else None
    if value is None or value.ndim < 2 or not value.size or (zero is not None and zero.any()):
        return 0.0
    return float(1 - (value != 0).reshape(len(value), -1).any(axis=1).mean())
