"""Read an ONNX file into a `Graph`."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import defs, helper, inliner, numpy_helper, shape_inference

from deploy.errors import UserError
from deploy.lint.graph import STANDARD, Graph, Node, Shape, dtype_of, is_known_operator


def read_graph(model: bytes, folder: Path | None = None) -> Graph:
    """Read a serialized ONNX model.

    Args:
        model: the bytes of the file.
        folder: where its external data are, if it has any.

    Raises:
        UserError: not an ONNX model, or a damaged one.
    """
    proto = _parse(model)
    # Where these fail, lint the file unchanged: a linter has to accept odd models.
    with suppress(shape_inference.InferenceError, ValueError, RuntimeError):
        proto = inliner.inline_local_functions(proto) if proto.functions else proto
        proto = shape_inference.infer_shapes(proto, data_prop=True)
    graphs = list(_with_bodies(proto.graph))
    fresh = _inferred(proto)
    node_protos = [node for graph in graphs for node in graph.node]
    opset = max((entry.version for entry in proto.opset_import if entry.domain in STANDARD), default=None)
    nodes = _nodes(node_protos, opset or defs.onnx_opset_version())
    constants = {tensor.name: tensor for graph in graphs for tensor in graph.initializer}
    constants |= {node.outputs[0]: tensor for node in nodes if (tensor := _constant(node)) is not None}
    values = [value for graph in graphs for value in (*graph.input, *graph.output, *graph.value_info)]
    tensors = {value.name: value.type.tensor_type for value in values if value.type.HasField("tensor_type")}
    shapes = {name: _dims(kind.shape.dim) for name, kind in tensors.items() if kind.HasField("shape")}
    shapes |= {name: shape for name, shape in fresh.items() if len(shape) == len(shapes.get(name, shape))}
    return Graph(
        nodes=nodes,
        inputs=tuple(value.name for value in proto.graph.input if value.name not in constants),
        outputs=tuple(value.name for value in proto.graph.output),
        constants=constants,
        types={name: _type(kind.elem_type) for name, kind in tensors.items() if kind.elem_type}
        | {name: _type(tensor.data_type) for name, tensor in constants.items()},
        shapes=shapes | {name: tuple(tensor.dims) for name, tensor in constants.items()},
        opset=opset,
        ir_version=proto.ir_version,
        folder=folder,
        body_names=frozenset(value.name for graph in graphs[1:] for value in (*graph.input, *graph.output)),
    )


def _inferred(proto: onnx.ModelProto) -> dict[str, Shape]:
    """Shapes of the main graph's tensors by inference alone: exporters leave sizes open that follow from others."""
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    del bare.graph.value_info[:]
    with suppress(shape_inference.InferenceError, ValueError, RuntimeError):
        bare = shape_inference.infer_shapes(bare, data_prop=True)
    kinds = {value.name: value.type.tensor_type for value in bare.graph.value_info}
    return {name: _dims(kind.shape.dim) for name, kind in kinds.items() if kind.HasField("shape")}


def _parse(model: bytes) -> onnx.ModelProto:
    if not model:
        raise UserError("is empty; export the model again")
    try:
        proto = onnx.load_model_from_string(model)
    except DecodeError as error:
        raise UserError("is not an ONNX model, or only a part of one; export it again") from error
    # Protobuf reads almost any bytes as a message without fields.
    if not proto.ir_version or not proto.graph.node:
        raise UserError("is not an ONNX model, because it holds no graph; export the model again")
    return proto


def _nodes(nodes: Sequence[onnx.NodeProto], opset: int) -> tuple[Node, ...]:
    """Read the nodes.

    Raises:
        UserError: what rules cannot handle: names that are not text, wrong inputs or attributes, cycles.
    """
    read: list[Node] = []
    for node in nodes:
        names = (node.op_type, node.domain, node.name, *node.input, *node.output)
        if not all(isinstance(name, str) for name in names):
            raise UserError("is damaged: it holds names that are not text; export the model again")
        if schemas := _schemas(node, opset):
            _check_schema(node, schemas)
        read.append(_node(node, schemas))
    try:
        TopologicalSorter({name: node.input for node in nodes for name in node.output if name}).prepare()
    except CycleError as error:
        raise UserError(
            f"is damaged: {error.args[1][0]} depends on itself; export the model again"
        ) from error
    return tuple(read)


def _schemas(node: onnx.NodeProto, opset: int) -> list[defs.OpSchema]:
    """ONNX's definitions of an operator: that of this opset, if it has one, and today's. Empty for custom operators."""
    if not is_known_operator(node.op_type, node.domain) or not defs.has(node.op_type):
        return []
    found = [defs.get_schema(node.op_type)]
    with suppress(defs.SchemaError):
        found.insert(0, defs.get_schema(node.op_type, opset))
    return found


def _check_schema(node: onnx.NodeProto, schemas: Sequence[defs.OpSchema]) -> None:
    where = f"{node.op_type} {node.name or ' '.join(node.output)}"
    if len(node.input) < schemas[0].min_input or len(node.output) < schemas[0].min_output:
        raise UserError(f"is damaged: {where} lacks inputs or outputs; export the model again")
    for entry in node.attribute:
        known = next((one.attributes[entry.name] for one in schemas if entry.name in one.attributes), None)
        if known and known.type.value != entry.type:  # pyright: ignore[reportAttributeAccessIssue]
            raise UserError(f"is damaged: {where} has an odd {entry.name}; export the model again")


def _with_bodies(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                if body.node or body.output:
                    yield from _with_bodies(body)


def _node(node: onnx.NodeProto, schemas: Sequence[defs.OpSchema]) -> Node:
    attributes: dict[str, object] = {}
    for entry in node.attribute:
        # An attribute that ONNX does not define for its operator has no meaning and could be of any type.
        if not schemas or any(entry.name in schema.attributes for schema in schemas):
            with suppress(ValueError):  # no value: a reference to an attribute of a function
                attributes[entry.name] = _plain(helper.get_attribute_value(entry))
    return Node(node.op_type, node.domain, node.name, tuple(node.input), tuple(node.output), attributes)


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _constant(node: Node) -> onnx.TensorProto | None:
    if node.op != "Constant":
        return None
    for name, value in node.attributes.items():
        if name == "value":
            return value
        if name in ("value_float", "value_floats"):
            return numpy_helper.from_array(np.asarray(value, np.float32))
        if name in ("value_int", "value_ints"):
            return numpy_helper.from_array(np.asarray(value, np.int64))
    return None


def _type(elem_type: int) -> str:
    return "string" if elem_type == onnx.TensorProto.STRING else dtype_of(elem_type).name


def _dims(dims: Iterable[onnx.TensorShapeProto.Dimension]) -> Shape:
    return tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in dims)
