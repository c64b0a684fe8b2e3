"""A read-only view of an ONNX model for the rules: producers and consumers of each tensor, constants, types, shapes.

The only module of the linter that uses the ONNX library.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import defs, helper, inliner, numpy_helper, shape_inference

from deploy.errors import UserError

Shape = tuple[int | str, ...]
"""Sizes; a name or "?" is a size that the file leaves open."""
STANDARD = ("", "ai.onnx")
"""Domains of the operators that ONNX defines."""


@dataclass(frozen=True, eq=False)
class Node:
    """An operator. `inputs` holds "" for omitted inputs; `attributes` holds numbers, text and lists of them."""

    type: str
    """Its name in the file; in another domain the same name is another operator."""
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.op} {self.name or next(iter(self.outputs), '')}"

    @cached_property
    def op(self) -> str:
        """The operator: those of ONNX by name alone ("Conv"), others with their domain ("my:Conv")."""
        return self.type if _is_ours(self.type, self.domain) else f"{self.domain}:{self.type}"

    @property
    def has_standard_name(self) -> bool:
        """Whether ONNX defines an operator of this name."""
        return defs.has(self.type)

    @property
    def is_standard(self) -> bool:
        """Whether this is an operator that ONNX defines."""
        return self.domain in STANDARD and self.has_standard_name


@dataclass(frozen=True, eq=False)
class Graph:
    """The model with local functions inlined and the bodies of If, Loop and Scan beside the other nodes."""

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, onnx.TensorProto]
    types: Mapping[str, str]
    """Element types as numpy calls them ("float32", "uint8", …), and "string"; a tensor of unknown type is absent."""
    shapes: Mapping[str, Shape]
    """A tensor of unknown rank is absent."""
    opset: int | None
    """Opset of the standard operators; None where the file does not name one."""
    ir_version: int
    folder: Path | None
    """Folder of the external data."""
    body_names: frozenset[str] = field(default=frozenset())
    """Inputs and outputs of the bodies of control flow."""

    @cached_property
    def producer(self) -> dict[str, Node]:
        """The node that computes each tensor."""
        return {name: node for node in self.nodes for name in node.outputs if name}

    @cached_property
    def consumers(self) -> dict[str, list[Node]]:
        """The nodes that read each tensor, in the order of the file."""
        readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(filter(None, node.inputs)):
                readers.setdefault(name, []).append(node)
        return readers

    def of(self, *ops: str) -> Iterator[Node]:
        """The nodes of these operator types, in the order of the file."""
        return (node for node in self.nodes if node.op in ops)

    def readers(self, name: str) -> list[Node]:
        """The nodes that read this tensor."""
        return self.consumers.get(name, [])

    def leaves(self, name: str) -> bool:
        """Whether this tensor is an output of the graph, or of a body of control flow."""
        return name in self.outputs or name in self.body_names

    def shape(self, name: str) -> Shape:
        """The shape of a tensor; () where it is unknown."""
        return self.shapes.get(name, ())

    def value(self, name: str) -> np.ndarray | None:
        """The value of a constant; None for text, computed or omitted tensors, and values in a missing file."""
        if name not in self.constants:
            return None
        with suppress(OSError, ValueError, KeyError, TypeError, RuntimeError, onnx.checker.ValidationError):
            value = numpy_helper.to_array(self.constants[name], base_dir=str(self.folder or ""))
            return None if value.dtype.kind in "OSU" else value
        return None

    def missing_data(self) -> Iterator[tuple[str, str]]:
        """Constants whose external file is missing, with the file's name."""
        for name, tensor in self.constants.items():
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                location = next(
                    (entry.value for entry in tensor.external_data if entry.key == "location"), ""
                )
                if self.folder is None or not _is_file(self.folder / location):
                    yield name, location

    @cached_property
    def constant_bytes(self) -> int:
        """Bytes of all constants, those in external files included."""
        return sum(
            math.prod(tensor.dims) * _dtype(tensor.data_type).itemsize for tensor in self.constants.values()
        )

    def macs(self, conv: Node) -> int:
        """Multiply-accumulates of a Conv at batch 1; 0 where shapes are unknown."""
        out, weight = self.shape(conv.outputs[0]), self.shape(conv.inputs[1])
        sizes = [*out[1:], *weight[1:]]
        return (
            math.prod(map(int, sizes)) if len(out) > 2 and all(isinstance(size, int) for size in sizes) else 0
        )

    @cached_property
    def total_macs(self) -> int:
        """Multiply-accumulates of all Convs at batch 1."""
        return sum(self.macs(conv) for conv in self.of("Conv"))

    def share(self, conv: Node) -> float:
        """The share of the multiply-accumulates of all Convs that this Conv has, 0…1."""
        return self.macs(conv) / max(self.total_macs, 1)


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
    node_protos = [node for graph in graphs for node in graph.node]
    opset = max((entry.version for entry in proto.opset_import if entry.domain in STANDARD), default=None)
    nodes = _nodes(node_protos, opset or defs.onnx_opset_version())
    constants = {tensor.name: tensor for graph in graphs for tensor in graph.initializer}
    constants |= {node.outputs[0]: tensor for node in nodes if (tensor := _constant(node)) is not None}
    values = [value for graph in graphs for value in (*graph.input, *graph.output, *graph.value_info)]
    tensors = {value.name: value.type.tensor_type for value in values if value.type.HasField("tensor_type")}
    return Graph(
        nodes=nodes,
        inputs=tuple(value.name for value in proto.graph.input if value.name not in constants),
        outputs=tuple(value.name for value in proto.graph.output),
        constants=constants,
        types={name: _type(kind.elem_type) for name, kind in tensors.items() if kind.elem_type}
        | {name: _type(tensor.data_type) for name, tensor in constants.items()},
        shapes={name: _dims(kind.shape.dim) for name, kind in tensors.items() if kind.HasField("shape")}
        | {name: tuple(tensor.dims) for name, tensor in constants.items()},
        opset=opset,
        ir_version=proto.ir_version,
        folder=folder,
        body_names=frozenset(value.name for graph in graphs[1:] for value in (*graph.input, *graph.output)),
    )


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


def _is_ours(name: str, domain: str) -> bool:
    """Whether the rules know this operator: those of ONNX, and Q and DQ also in ONNX Runtime's own domain."""
    return domain in STANDARD or (
        domain == "com.microsoft" and name in ("QuantizeLinear", "DequantizeLinear")
    )


def _schemas(node: onnx.NodeProto, opset: int) -> list[defs.OpSchema]:
    """ONNX's definitions of an operator: that of this opset, if it has one, and today's. Empty for custom operators."""
    if not _is_ours(node.op_type, node.domain) or not defs.has(node.op_type):
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


def _is_file(path: Path) -> bool:
    with suppress(OSError):  # names that are too long, folders that may not be entered
        return path.is_file()
    return False


def _dtype(elem_type: int) -> np.dtype:
    try:
        return helper.tensor_dtype_to_np_dtype(elem_type)
    except KeyError:
        return np.dtype(np.void)  # newer than the ONNX library


def _type(elem_type: int) -> str:
    return "string" if elem_type == onnx.TensorProto.STRING else _dtype(elem_type).name


def _dims(dims: Iterable[onnx.TensorShapeProto.Dimension]) -> Shape:
    return tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in dims)
