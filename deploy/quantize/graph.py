"""Read an ONNX model and follow its tensors: shared by the transformations of this package."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np
import onnx
import onnx.version_converter
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from deploy.errors import UserError

MIN_OPSET = 13
"""The first opset whose DequantizeLinear takes a scale per channel."""
Readers = defaultdict[str, list[onnx.NodeProto]]
QUANTIZED = ("QuantizeLinear", "DequantizeLinear")
PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators that do nearly all of a network's work."""


def load(model: bytes) -> onnx.ModelProto:
    """Parse and check an ONNX file.

    Raises:
        UserError: a file that is empty, damaged, not ONNX, invalid, or older than opset 13.
    """
    try:
        proto = onnx.load_model_from_string(model)
    except DecodeError as error:
        raise UserError(f"the model is not an ONNX file, or damaged ({error}); export it again") from error
    if not proto.graph.node:  # an empty file parses as an empty model
        raise UserError("the model is empty: it has no operators; export it again")
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"the model is not valid ONNX ({reason}); export it again") from error
    opset = opset_of(proto)
    if opset < MIN_OPSET:
        raise UserError(f"the model has opset {opset}, {MIN_OPSET} or newer is needed; export it again")
    return proto


def load_float(model: bytes) -> onnx.ModelProto:
    """`load` a model in fp32.

    Raises:
        UserError: as `load`, and a model that is already quantized or in half precision.
    """
    proto = load(model)
    kinds = {node.op_type for node in proto.graph.node}
    if kinds.intersection(QUANTIZED):
        raise UserError("the model is quantized already; give the fp32 model")
    halves = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    if any(tensor.data_type in halves for tensor in proto.graph.initializer):
        raise UserError("the model is in half precision already; give the fp32 model")
    return proto


def opset_of(proto: onnx.ModelProto) -> int:
    """Version of the standard operators."""
    return next(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))


def with_opset(proto: onnx.ModelProto, needed: int) -> onnx.ModelProto:
    """The model with at least this opset.

    Raises:
        UserError: it cannot be raised.
    """
    opset = opset_of(proto)
    if opset >= needed:
        return proto
    try:
        return onnx.version_converter.convert_version(proto, needed)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"the model has opset {opset}, and {needed} is needed ({reason}); export it again"
        ) from error


def constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """The initializers by name."""
    return {tensor.name: tensor for tensor in graph.initializer}


def producers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """The node that computes each tensor, by the tensor's name."""
    return {output: node for node in graph.node for output in node.output if output}


def readers(graph: onnx.GraphProto) -> Readers:
    """The nodes that read each tensor; an empty list for a tensor that no node reads."""
    found: Readers = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            found[name].append(node)
    return found


def downstream(graph: onnx.GraphProto, of: Iterable[str]) -> set[str]:
    """The tensors `of` and all tensors computed from their values (not just from their shapes)."""
    reached = set(of)
    for node in graph.node:
        if node.op_type not in ("Shape", "Size") and not reached.isdisjoint(node.input):
            reached.update(node.output)
    return reached


def rebuilt(
    proto: onnx.ModelProto, nodes: Iterable[onnx.NodeProto], added: Mapping[str, np.ndarray | np.generic]
) -> bytes:
    """Serialize a model with other nodes.

    Args:
        proto: the model; it is modified.
        nodes: its new nodes.
        added: new constants by name.

    Returns:
        The bytes of the file, without constants that no node reads; always the same for the same model.
    """
    graph = proto.graph
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in added.items()
    )
    used = {name for node in graph.node for name in node.input}
    read = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(read)
    onnx.checker.check_model(proto)
    return proto.SerializeToString(deterministic=True)
