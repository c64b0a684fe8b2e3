"""Convert a model to half precision, with explicit types throughout, as strongly typed TensorRT networks need."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from deploy.errors import UserError
from deploy.quantize.graph import constants, load_float, rebuilt

LARGEST = float(np.finfo(np.float16).max)
_SUMS = {"ReduceMean", "ReduceSum", "GlobalAveragePool"}
"""Operators that stay in float32: a partial sum over a whole map may exceed 65504 although the mean does not."""
_ALWAYS_FLOAT = {("Resize", 1), ("Resize", 2)}
"""Inputs that are float32 for any type of the data: regions of interest and scales. (Operator, index.)"""


def to_fp16(model: bytes) -> bytes:
    """Convert weights and activations to float16, from the first convolution to the last.

    Inputs and outputs keep their types. The normalization of the image stays in float32, which represents raw values
    exactly, and so does what follows the last convolution: upsampling, arg-max, and the unit of a regressed map.

    Raises:
        UserError: a model that is damaged, not in fp32, or has a weight beyond ±65504.
    """
    proto = load_float(model)
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
    return half


class _Halver:
    """Converts the nodes of a graph one after the other, and tracks which tensors are already in half precision."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        graph = onnx.shape_inference.infer_shapes(proto).graph
        typed = (*graph.input, *graph.value_info, *graph.output)
        self._float = {value.name for value in typed if value.type.tensor_type.elem_type == TensorProto.FLOAT}
        self._constants = {n: t for n, t in constants(graph).items() if t.data_type == TensorProto.FLOAT}
        self._outputs = {value.name for value in graph.output}
        self._before = _before_convolutions(graph)
        self._casts: dict[str, str] = {}
        self.half: set[str] = set()
        self.added: dict[str, np.ndarray] = {}

    def converted(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The node in its new precision, with the casts that it needs before and after."""
        between = not (self.half.isdisjoint(node.input) or self._before.isdisjoint(node.output))
        runs_half = node.op_type == "Conv" or (between and node.op_type not in _SUMS)
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

    def _half_constant(self, name: str) -> str:
        value = numpy_helper.to_array(self._constants[name])
        if not np.abs(value).max(initial=0) <= LARGEST:
            raise UserError(
                f"tensor {name} has values beyond ±{LARGEST:.0f}, too large for fp16; use fp32 or int8"
            )
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
                node.output[index] = f"{name}.half"
                casts.append(_cast_node(f"{name}.half", name, TensorProto.FLOAT))
            elif name in self._float:
                self.half.add(name)
        return casts


def _before_convolutions(graph: onnx.GraphProto) -> set[str]:
    """The tensors from which a convolution is reached."""
    found: set[str] = set()
    for node in reversed(graph.node):
        if node.op_type == "Conv" or not found.isdisjoint(node.output):
            found.update(node.input)
    return found


def _cast_node(source: str, target: str, to: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"{target}.cast", to=to)
