"""Convert a model to half precision, with explicit types throughout, as strongly typed TensorRT networks need."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from deploy.errors import UserError
from deploy.quantize.graph import PRODUCTS, constants, load, load_float, rebuilt, with_opset

LARGEST = float(np.finfo(np.float16).max)
_SUMS = {"ReduceMean", "ReduceSum", "GlobalAveragePool"}
"""Operators that stay in float32: a partial sum over a whole map may exceed 65504 although the mean does not."""
_ALWAYS_FLOAT = {("Resize", 1), ("Resize", 2)}
"""Inputs that are float32 for any type of the data: regions of interest and scales. (Operator, index.)"""
HALF_SCALES = 19
"""The first opset whose QuantizeLinear and DequantizeLinear take float16."""


def to_fp16(model: bytes) -> bytes:
    """Convert an fp32 model to float16, from the first convolution to the last convolution or matrix product.

    Inputs and outputs keep their types. The normalization of the image stays in float32, which represents raw values
    exactly, and so does what follows the last product: arg-max, and the unit of a regressed map.

    Raises:
        UserError: a model that is damaged, not in fp32, or has a weight beyond ±65504.
    """
    half, too_large = _converted(load_float(model))
    if too_large:
        raise UserError(
            f"tensor {too_large[0]} has values beyond ±{LARGEST:.0f}, too large for fp16; use fp32 or int8"
        )
    return half


def half_beside_int8(model: bytes) -> bytes:
    """Convert what is not INT8 in a Q/DQ model to float16; otherwise as `to_fp16`.

    The scales of Q and DQ become float16, too, for which the opset is raised if need be; they must be float16 numbers
    already (`deploy.quantize.qdq.insert` makes no others), so that both precisions round to the same grid. A Q that
    reads the normalized image keeps float32. An operator with a constant beyond ±65504 stays in float32.

    Raises:
        UserError: a model that is damaged, or whose opset is too old and cannot be raised.
    """
    return _converted(with_opset(load(model), HALF_SCALES))[0]


def _converted(proto: onnx.ModelProto) -> tuple[bytes, list[str]]:
    """The model in half precision, and the constants that keep operators of it in float32, as they are too large."""
    halver = _Halver(proto)
    nodes = [new for node in proto.graph.node for new in halver.converted(node)]
    for value in proto.graph.value_info:
        if value.name in halver.half:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
    half = rebuilt(proto, nodes, halver.added)
    try:
        onnx.checker.check_model(half, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"the model cannot be converted to fp16 ({reason}); use fp32 or int8") from error
    return half, halver.too_large


def _fits(value: np.ndarray) -> bool:
    """Whether all values are finite in float16."""
    return bool(np.abs(value).max(initial=0) <= LARGEST)


class _Halver:
    """Converts the nodes of a graph one after the other, and tracks which tensors are already in half precision."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        graph = onnx.shape_inference.infer_shapes(proto).graph
        typed = (*graph.input, *graph.value_info, *graph.output)
        self._float = {value.name for value in typed if value.type.tensor_type.elem_type == TensorProto.FLOAT}
        self._constants = {n: t for n, t in constants(graph).items() if t.data_type == TensorProto.FLOAT}
        self._outputs = {value.name for value in graph.output}
        self._before = _before_products(graph)
        self._casts: dict[str, str] = {}
        self.half: set[str] = set()
        self.too_large: list[str] = []
        self.added: dict[str, np.ndarray] = {}

    def converted(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The node in its new precision, with the casts that it needs before and after."""
        runs_half = self._runs_half(node)
        nodes = []
        for index, name in enumerate(node.input):
            wants_half = runs_half and (node.op_type, index) not in _ALWAYS_FLOAT
            if name in self._constants and wants_half:
                node.input[index] = self._half_constant(name)
            elif name in self._float and wants_half != (name in self.half):
                nodes += self._cast(name, wants_half)
                node.input[index] = self._casts[name]
        nodes.append(node)
        if runs_half:
            nodes += self._mark_outputs(node)
        return nodes

    def _runs_half(self, node: onnx.NodeProto) -> bool:
        if not self._may_be_half(node):
            return False
        too_large = [name for name in node.input if not self._fits_half(name)]
        self.too_large += too_large
        return not too_large

    def _may_be_half(self, node: onnx.NodeProto) -> bool:
        if node.op_type in _SUMS:
            return False
        if node.op_type == "QuantizeLinear":
            return node.input[0] in self.half and self._is_normal(node.input[1])
        reaches = not self._before.isdisjoint(node.output)
        if node.op_type == "DequantizeLinear":
            return reaches
        return node.op_type in PRODUCTS or (reaches and not self.half.isdisjoint(node.input))

    def _fits_half(self, name: str) -> bool:
        return name not in self._constants or _fits(numpy_helper.to_array(self._constants[name]))

    def _is_normal(self, scale: str) -> bool:
        """Whether 1 / scale, by which devices multiply, is finite in float16."""
        return scale in self._constants and bool(
            (numpy_helper.to_array(self._constants[scale]) >= np.finfo(np.float16).smallest_normal).all()
        )

    def _half_constant(self, name: str) -> str:
        value = numpy_helper.to_array(self._constants[name])
        self.added[f"{name}.half"] = value.astype(np.float16)
        return f"{name}.half"

    def _cast(self, name: str, to_half: bool) -> list[onnx.NodeProto]:
        """The node that casts the tensor to the other precision, on the first request only."""
        if name in self._casts:
            return []
        self._casts[name] = f"{name}.half" if to_half else f"{name}.float"
        return [_cast_node(name, self._casts[name], TensorProto.FLOAT16 if to_half else TensorProto.FLOAT)]

    def _mark_outputs(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Record the outputs of a node in half precision; cast outputs of the graph back to their own type."""
        if node.op_type == "Cast":
            (to,) = (attribute for attribute in node.attribute if attribute.name == "to")
            to.i = TensorProto.FLOAT16 if to.i == TensorProto.FLOAT else to.i
        casts = []
        for index, name in enumerate(node.output):
            if name in self._outputs & self._float:
                node.output[index] = self._casts[name] = f"{name}.half"  # for readers in half precision
                casts.append(_cast_node(f"{name}.half", name, TensorProto.FLOAT))
            elif name in self._float:
                self.half.add(name)
        return casts


def _before_products(graph: onnx.GraphProto) -> set[str]:
    """The tensors from which a convolution or a matrix product is reached."""
    found: set[str] = set()
    for node in reversed(graph.node):
        if node.op_type in PRODUCTS or not found.isdisjoint(node.output):
            found.update(node.input)
    return found


def _cast_node(source: str, target: str, to: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"{target}.cast", to=to)
