"""Mark tensors inside a network as outputs, so that their values can be seen wherever it runs."""

from dataclasses import dataclass

import onnx
from onnx import TensorProto, helper, shape_inference

from deploy.quantize.graph import QUANTIZED, load

_SEEN = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16"}
"""Types that every backend returns as they are."""


@dataclass(frozen=True)
class Mark:
    """A tensor that can be marked."""

    tensor: str
    operator: str
    """The node that computes it, such as "Conv /encoder/conv1"."""


def candidates(model: bytes) -> list[Mark]:
    """The tensors of a network that can be marked, in the order in which they are computed.

    They are in float, of the batch of the image, and of fixed size otherwise. Rounded values (between Q and DQ, and
    after it) are left out, because an output there would keep operators apart that run in INT8.

    Args:
        model: bytes of an ONNX file.

    Raises:
        UserError: as `deploy.quantize.graph.load`.
    """
    proto = load(model)
    kinds = _kinds(proto)
    batch = _batch(kinds[proto.graph.input[0].name])
    outputs = {output.name for output in proto.graph.output}
    return [
        Mark(name, f"{node.op_type} {node.name}".strip())
        for node in proto.graph.node
        if node.op_type not in QUANTIZED
        for name in node.output
        if name in kinds and name not in outputs and _fits(kinds[name], batch)
    ]


def marked(model: bytes, tensors: list[str]) -> bytes:
    """The network with these tensors as outputs, after its own."""
    proto = load(model)
    kinds = _kinds(proto)
    proto.graph.output.extend(
        helper.make_tensor_value_info(
            name, kinds[name].elem_type, [_size(dim) for dim in kinds[name].shape.dim]
        )
        for name in tensors
    )
    return proto.SerializeToString()


def _kinds(proto: onnx.ModelProto) -> dict[str, onnx.TypeProto.Tensor]:
    """Type and shape of each tensor whose shape is known."""
    graph = shape_inference.infer_shapes(proto, data_prop=True).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    return {one.name: one.type.tensor_type for one in values if one.type.tensor_type.HasField("shape")}


def _batch(kind: onnx.TypeProto.Tensor) -> int | str | None:
    return _size(kind.shape.dim[0]) if kind.shape.dim else None


def _size(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    return dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None


def _fits(kind: onnx.TypeProto.Tensor, batch: int | str | None) -> bool:
    """Whether it is a batch of maps or vectors in float."""
    sizes = [_size(dim) for dim in kind.shape.dim]
    fixed = all(isinstance(size, int) and size > 0 for size in sizes[1:])
    return kind.elem_type in _SEEN and len(sizes) > 1 and batch is not None and sizes[0] == batch and fixed
