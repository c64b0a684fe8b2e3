"""A read-only view of an ONNX model for the rules: producers and consumers of each tensor, constants, types, shapes.

`reading.read_graph` makes it; only these two modules of the linter use the ONNX library.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import defs, helper, numpy_helper

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators that do nearly all of a network's work."""
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
        return self.type if is_known_operator(self.type, self.domain) else f"{self.domain}:{self.type}"

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
            math.prod(tensor.dims) * dtype_of(tensor.data_type).itemsize for tensor in self.constants.values()
        )

    def macs(self, product: Node) -> int:
        """Multiply-accumulates of one of PRODUCTS at batch 1; 0 where shapes are unknown."""
        made, (data, weight) = self.shape(product.outputs[0]), map(self.shape, product.inputs[:2])
        if product.op == "Conv":
            sizes = (*made[1:], *weight[1:]) if len(made) > 2 else ()
        elif product.op == "ConvTranspose":
            sizes = (*data[2:], *weight) if len(data) > 2 else ()
        else:
            rows = (
                made[1:] if len(made) > 2 or isinstance(next(iter(made), 0), str) else made
            )  # without the batch
            depth = weight[-1 if product.attributes.get("transB", 0) else -2 :][:1]
            sizes = (*rows, *depth) if made and depth else ()
        return math.prod(map(int, sizes)) if sizes and all(isinstance(size, int) for size in sizes) else 0

    @cached_property
    def total_macs(self) -> int:
        """Multiply-accumulates of all products at batch 1."""
        return sum(self.macs(product) for product in self.of(*PRODUCTS))

    def share(self, product: Node) -> float:
        """The share of the multiply-accumulates of all products that this one has, 0…1."""
        return self.macs(product) / max(self.total_macs, 1)


def is_known_operator(name: str, domain: str) -> bool:
    """Whether the rules know this operator: those of ONNX, and Q and DQ also in ONNX Runtime's own domain."""
    return domain in STANDARD or (
        domain == "com.microsoft" and name in ("QuantizeLinear", "DequantizeLinear")
    )


def _is_file(path: Path) -> bool:
    with suppress(OSError):  # names that are too long, folders that may not be entered
        return path.is_file()
    return False


def dtype_of(elem_type: int) -> np.dtype:
    """The numpy dtype of an ONNX element type; void where the ONNX library does not know it."""
    try:
        return helper.tensor_dtype_to_np_dtype(elem_type)
    except KeyError:
        return np.dtype(np.void)  # newer than the ONNX library
