"""Write small ONNX models without the package `onnx`, which devices do not have.

ONNX files are protocol buffers; the numbers of their fields are those of onnx.proto3 (github.com/onnx/onnx).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

OPSET, IR_VERSION = 13, 8
_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int64": 7}
Field = tuple[int, "int | str | bytes"]


class Node(NamedTuple):
    """An operator of the default domain, without attributes."""

    operator: str
    inputs: Sequence[str]
    output: str


class Value(NamedTuple):
    """Input or output of a model."""

    name: str
    dtype: str
    shape: tuple[int, ...]


def onnx_bytes(
    given: Value, nodes: Sequence[Node], constants: Mapping[str, np.ndarray], found: Value
) -> bytes:
    """The file of a model with one input and one output.

    Args:
        given: the input.
        nodes: in order of execution.
        constants: by name.
        found: the output.
    """
    graph = _message(
        *((1, _node(node)) for node in nodes),
        (2, "graph"),
        *((5, _tensor(name, array)) for name, array in constants.items()),
        (11, _value(given)),
        (12, _value(found)),
    )
    return _message((1, IR_VERSION), (7, graph), (8, _message((2, OPSET))))


def _node(node: Node) -> bytes:
    return _message(*((1, name) for name in node.inputs), (2, node.output), (4, node.operator))


def _tensor(name: str, array: np.ndarray) -> bytes:
    little = array.astype(array.dtype.newbyteorder("<"))
    dims = ((1, size) for size in array.shape)
    return _message(*dims, (2, _TYPES[array.dtype.name]), (8, name), (9, little.tobytes()))


def _value(value: Value) -> bytes:
    shape = _message(*((1, _message((1, size))) for size in value.shape))
    return _message((1, value.name), (2, _message((1, _message((1, _TYPES[value.dtype]), (2, shape))))))


def _message(*fields: Field) -> bytes:
    parts = []
    for number, content in fields:
        if isinstance(content, int):
            parts += [_varint(number << 3), _varint(content)]
        else:
            data = content.encode() if isinstance(content, str) else content
            parts += [_varint(number << 3 | 2), _varint(len(data)), data]
    return b"".join(parts)


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the high bit says that more follow."""
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])
