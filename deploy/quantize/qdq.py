"""An INT8 or FP8 model: the fp32 model with QuantizeLinear and DequantizeLinear around what runs in it.

In INT8 every convolution, matrix product and sum of two maps reads its activations from a symmetric grid of signed
bytes with one scale per tensor; weights have one scale per output channel. (`deploy.quantize.formats` says what differs
in FP8.) The bias stays in float, as TensorRT requires, and so do the normalization of the image, constant matrices,
concatenation, resizing and the logits. Compilers run the products between these nodes in INT8: ONNX Runtime and
OpenVINO with `cpu_form`, TensorRT with `deploy.quantize.tensorrt_form`. Scales are float16 numbers, so that both forms
have the same grids.
"""

from collections.abc import Collection, Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from deploy.errors import UserError
from deploy.quantize.formats import INT8, Format
from deploy.quantize.graph import constants, load, load_float, readers, rebuilt, with_opset
from deploy.quantize.structure import (
    Layer,
    find_grids,
    find_layers,
    never_negative,
    starts_at_zero,
    weight_axis,
)

SMALLEST_SCALE = 2.0**-24
"""The smallest float16 number above 0."""
LARGEST_BIAS = 2**30
"""In units of input scale × weight scale, as CPU kernels store it: INT32 with room for the sum."""

_ZERO, _LOW_ZERO, _MIDDLE_ZERO = "zero.s8", "zero.u8", "middle.u8"


def layers(model: bytes, format: Format = INT8) -> list[Layer]:
    """The operators of an fp32 model that can run in a format, in the order of execution; see `Layer`.

    Raises:
        UserError: a model that is damaged or not in fp32.
    """
    return _layers(load_float(model).graph, format)


def insert(
    model: bytes, ranges: Mapping[str, float], float_layers: Collection[str] = (), format: Format = INT8
) -> bytes:
    """Quantize an fp32 model: in INT8 the signed form, from which the forms for CPUs and TensorRT are made.

    Args:
        model: the fp32 model.
        ranges: for each tensor of the quantized layers (`Layer.tensors`) the magnitude that the largest number of the
            format represents (127 of INT8), above 0. All nodes read such a tensor from its grid, except layers in
            `float_layers`.
        float_layers: names of layers that stay unchanged.
        format: what to round to.

    Raises:
        UserError: a model that is damaged or not in fp32, an unknown layer, or a missing range.
    """
    proto = with_opset(load_float(model), format.opset)
    graph = proto.graph
    found = _layers(graph, format)
    if unknown := set(float_layers).difference(layer.name for layer in found):
        raise UserError(
            f"no layer is called {', '.join(sorted(unknown))}; the sensitivity table has the names"
        )
    chosen = {layer.output: layer for layer in found if layer.name not in float_layers}
    untouched = {layer.output for layer in found} - set(chosen)
    grids = find_grids(graph, chosen.values())
    if missing := [root for root in grids.values() if not ranges.get(root, 0) > 0]:
        raise UserError(f"tensor {missing[0]} has no range above 0; calibrate all tensors of the layers")
    values = constants(graph)
    scales = {root: scale_above(np.float32(ranges[root] / format.largest)) for root in grids.values()}
    added: dict[str, np.ndarray | np.generic] = {_scale(root): scale for root, scale in scales.items()}
    added[_ZERO] = np.zeros((), format.dtype)
    nodes = [node for image in graph.input for node in _grid_nodes(image.name, grids, format)]
    for node in graph.node:
        layer = chosen.get(node.output[0])
        if layer and layer.kind != "Add":
            weight, *bias = (numpy_helper.to_array(values[name]) for name in node.input[1:] if name)
            bias_steps = bias[0] / scales[grids[node.input[0]]] if bias else 0.0
            name, axis = f"{layer.name}.weight", weight_axis(node) if format.per_channel else None
            numbers, scale = quantize_weight(weight, bias_steps, axis, format)
            # ONNX allows zero points to be omitted or shared, but some transformations of ONNX Runtime fail on either.
            added |= {f"{name}.{format.name}": numbers, _scale(name): scale}
            added[f"{name}.zero"] = np.zeros(scale.shape, format.dtype)
            nodes.append(_dequantize(name, [_scale(name), f"{name}.zero"], format, axis))
            node.input[1] = _values(name)
        if node.output[0] not in untouched:
            node.input[:] = [_values(name) if name in grids else name for name in node.input]
        nodes.append(node)
        nodes += [new for output in node.output for new in _grid_nodes(output, grids, format)]
    return rebuilt(proto, nodes, added)


def cpu_form(s8: bytes) -> bytes:
    """Convert the result of `insert` to unsigned activations, which CPUs run at twice the speed.

    Scales and signed weights stay the same; both terms of a sum stay rounded, as ONNX Runtime needs them. The zero
    point becomes 128, or 0 where no value is negative: ONNX Runtime then needs no ReLU before the grid. A grid from 0
    extends to 255 steps, so it represents values that the signed form clips at 127 steps. Where nothing is clipped,
    both forms compute the same. As long as values stay below 127 steps, x86 CPUs without VNNI, which add two products
    of a byte and a weight in 16 bits, do not overflow.
    """
    proto = load(s8)
    graph = proto.graph
    positive, read = never_negative(graph), readers(graph)
    zeros = {
        node.output[0]: _LOW_ZERO if starts_at_zero(node.input[0], positive, read) else _MIDDLE_ZERO
        for node in graph.node
        if node.op_type == "QuantizeLinear"
    }
    for node in graph.node:
        integers = node.output[0] if node.op_type == "QuantizeLinear" else node.input[0] if node.input else ""
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and integers in zeros:
            node.input[2] = zeros[integers]
    return rebuilt(proto, list(graph.node), {_LOW_ZERO: np.uint8(0), _MIDDLE_ZERO: np.uint8(128)})


def quantize_weight(
    weight: np.ndarray, bias_steps: np.ndarray | float, axis: int | None = 0, format: Format = INT8
) -> tuple[np.ndarray, np.ndarray]:
    """Quantize the weights of a convolution or a matrix product.

    A scale is max |w| / 127 (448 in FP8), but large enough for the bias to fit an INT32 in units of scale × input
    scale, in which CPUs add it. This matters for channels that died in training: their weights are almost 0, so they
    output the bias.

    Args:
        weight: float32, O×I×k×k of a convolution, I×O or O×I of a matrix product.
        bias_steps: the bias [O] in units of the input scale.
        axis: the axis of the weight that has the O outputs; None for one scale.
        format: what to round to.

    Returns:
        The numbers, in the shape of `weight`, and their float32 scales, [O] or one.
    """
    others = tuple(index for index in range(weight.ndim) if index != axis)
    scale = np.abs(weight).max(axis=others) / format.largest
    if axis is not None:
        scale = np.maximum(scale, np.abs(bias_steps) / LARGEST_BIAS)
    scale = scale_above(scale)
    numbers = np.clip(weight / np.expand_dims(scale, others), -format.largest, format.largest)
    return (np.round(numbers) if format.dtype.kind == "i" else numbers).astype(format.dtype), scale


def scale_above(scale: np.ndarray | np.floating) -> np.ndarray:
    """The smallest float16 number that is not below a scale (≥ 0), as float32; above 65504 the scale itself.

    Never 0, which no device can divide by. So the rounding costs no clipping, and at most a thousandth of a step's size
    (more below 0.00006, where float16 is coarser).
    """
    exact = np.maximum(scale, SMALLEST_SCALE).astype(np.float32)
    with np.errstate(over="ignore"):
        half = exact.astype(np.float16)
    half = np.where(half < exact, np.nextafter(half, np.float16(np.inf)), half).astype(np.float32)
    return np.where(np.isfinite(half), half, exact)


def _layers(graph: onnx.GraphProto, format: Format) -> list[Layer]:
    """The layers that the format allows."""
    weights = constants(graph)
    kernels = {
        node.output[0]: max(weights[node.input[1]].dims[2:], default=1)
        for node in graph.node
        if node.op_type == "Conv" and node.input[1] in weights
    }
    return [
        layer
        for layer in find_layers(graph)
        if (format.sums or layer.kind != "Add") and kernels.get(layer.output, 1) <= format.largest_kernel
    ]


def _grid_nodes(name: str, grids: Mapping[str, str], format: Format) -> list[onnx.NodeProto]:
    """The two nodes that round a tensor to its grid; none for a tensor without a grid."""
    if name not in grids:
        return []
    grid, numbers = [_scale(grids[name]), _ZERO], f"{name}.{format.name}"
    quantize = helper.make_node("QuantizeLinear", [name, *grid], [numbers], name=f"{name}.quantize")
    return [quantize, _dequantize(name, grid, format)]


def _dequantize(name: str, grid: list[str], format: Format, axis: int | None = None) -> onnx.NodeProto:
    inputs, outputs = [f"{name}.{format.name}", *grid], [_values(name)]
    return helper.make_node("DequantizeLinear", inputs, outputs, name=f"{name}.dequantize", axis=axis)


def _scale(name: str) -> str:
    return f"{name}.scale"


def _values(name: str) -> str:
    """Name of the tensor of values that the numbers represent."""
    return f"{name}.rounded"
