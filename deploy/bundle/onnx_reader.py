"""What an ONNX file declares, read from its bytes alone: before a runtime opens it, and without the `onnx` package.

Numbers of fields are those of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto). A file is read once,
weights are skipped over, and nothing is allocated in proportion to what it declares. Fields that occur twice add up, as
protobuf merges them.
"""

import math
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DEEPEST = 16
"""Nesting of graphs in operators; networks have none or one level."""
MOST_NUMBERS = 16
"""Constants of at most so many integers are read: shapes."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_EXTERNAL = 1
"""`TensorProto.data_location` of a tensor whose values are in another file."""
_SIZED = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1, "Resize": 3}
"""Operators that enlarge, and the operand that tells to which shape (Tile: how often)."""


@dataclass(frozen=True)
class Value:
    """An input or output."""

    kind: int | None
    """`TensorProto.DataType`; None where it is not declared."""
    shape: tuple[int | str, ...] | None
    """Sizes, "" or a name where they vary; None where they are not declared."""


@dataclass
class Declared:
    """What a file declares, in all its graphs and functions."""

    inputs: dict[str, Value] = field(default_factory=dict)
    """Of the outermost graph, without those that have a constant of their name."""
    outputs: dict[str, Value] = field(default_factory=dict)
    operators: set[str] = field(default_factory=set)
    external: set[str] = field(default_factory=set)
    """Files that hold tensors."""
    largest: int = 0
    """Elements of the largest tensor that an operator makes from a constant shape."""
    _constants: dict[str, int] = field(default_factory=dict)
    _sized: list[str] = field(default_factory=list)


def read_declared(model: Path | bytes) -> Declared:
    """Read what a file declares.

    Raises:
        ValueError: it is not an ONNX file, or is cut off, or nested deeper than `DEEPEST`.
        OSError: it cannot be read.
    """
    if isinstance(model, bytes):
        return _declared(memoryview(model))
    with open(model, "rb") as file:
        if not file.seek(0, 2):
            raise ValueError("it is empty")
        # Not closed here: an error's traceback may still refer to it.
        return _declared(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))


def _declared(view: memoryview) -> Declared:
    found = Declared()
    for number, content in _fields(view):
        if number == 7:
            _graph(content, found, 0)
        elif number == 25:
            _function(content, found)
    for name in found._constants:
        found.inputs.pop(name, None)
    found.largest = max((abs(found._constants.get(name, 0)) for name in found._sized), default=0)
    return found


def _graph(view: memoryview, found: Declared, depth: int) -> None:
    if depth > DEEPEST:
        raise ValueError(f"its graphs are nested deeper than {DEEPEST}")
    for number, content in _fields(view):
        if number == 1:
            _node(content, found, depth)
        elif number == 5:
            _tensor(content, found)
        elif number == 15:
            _sparse(content, found)
        elif number in (11, 12) and depth == 0:
            name, value = _value(content)
            (found.inputs if number == 11 else found.outputs)[name] = value


def _function(view: memoryview, found: Declared) -> None:
    for number, content in _fields(view):
        if number == 7:
            _node(content, found, 1)
        elif number == 11:
            _attribute(content, found, "", 1)


def _node(view: memoryview, found: Declared, depth: int) -> None:
    operands: list[str] = []
    operator, output = "", ""
    attributes: list[memoryview] = []
    for number, content in _fields(view):
        if number == 1:
            operands.append(_text(content))
        elif number == 2:
            output = output or _text(content)
        elif number == 4:
            operator = _text(content)
        elif number == 5:
            attributes.append(content)
    found.operators.add(operator)
    position = _SIZED.get(operator)
    if position is not None and len(operands) > position:
        found._sized.append(operands[position])
    for attribute in attributes:
        _attribute(attribute, found, output if operator == "Constant" else "", depth)


def _attribute(view: memoryview, found: Declared, constant: str, depth: int) -> None:
    numbers: list[int] = []
    for number, content in _fields(view):
        if number in (5, 10):
            _tensor(content, found, constant)
        elif number in (6, 11):
            _graph(content, found, depth + 1)
        elif number in (22, 23):
            _sparse(content, found)
        elif number == 8 and constant:
            numbers += _integers(content)
    if numbers:
        found._constants[constant] = math.prod(numbers)


def _sparse(view: memoryview, found: Declared) -> None:
    for number, content in _fields(view):
        if number in (1, 2):
            _tensor(content, found)


def _tensor(view: memoryview, found: Declared, name: str = "") -> None:
    kind, location, entries = 0, 0, []
    numbers: list[int] = []
    count = 0
    for number, content in _fields(view):
        if number == 2:
            kind = _integer(content)
        elif number == 7:
            numbers += _integers(content)
        elif number == 8:
            name = name or _text(content)
        elif number == 9:
            count = len(content)
            if count % 8 == 0 and count <= 8 * MOST_NUMBERS:
                numbers = list(struct.unpack(f"<{count // 8}q", content))
        elif number == 13:
            entries.append(content)
        elif number == 14:
            location = _integer(content)
    found._constants[name] = math.prod(numbers) if kind == 7 and numbers else 0
    if entries or location == _EXTERNAL:
        found.external.add(_location(entries))


def _location(entries: list[memoryview]) -> str:
    for entry in entries:
        pair = {number: _text(content) for number, content in _fields(entry)}
        if pair.get(1) == "location":
            return pair.get(2, "")
    return ""


def _value(view: memoryview) -> tuple[str, Value]:
    name, kind, shape = "", None, None
    for number, content in _fields(view):
        if number == 1:
            name = _text(content)
        elif number == 2:
            for inner, tensor in _fields(content):
                if inner == 1:
                    kind, shape = _tensor_type(tensor)
    return name, Value(kind, shape)


def _tensor_type(view: memoryview) -> tuple[int | None, tuple[int | str, ...] | None]:
    kind, shape = None, None
    for number, content in _fields(view):
        if number == 1:
            kind = _integer(content)
        elif number == 2:
            shape = tuple(_size(size) for inner, size in _fields(content) if inner == 1)
    return kind, shape


def _size(view: memoryview) -> int | str:
    size: int | str = ""
    for number, content in _fields(view):
        size = _integer(content) if number == 1 else _text(content) if number == 2 else size
    return size


def _text(content: memoryview | int) -> str:
    if isinstance(content, int):
        raise ValueError("a number where it should have a text")
    return str(content, "utf-8", "replace")


def _integer(content: memoryview | int) -> int:
    if not isinstance(content, int):
        raise ValueError("a text where it should have a number")
    return content


def _integers(content: memoryview | int) -> list[int]:
    """Repeated integers, packed or not; of long ones only the first."""
    if isinstance(content, int):
        return [_signed(content)]
    numbers, at = [], 0
    while at < len(content) and len(numbers) < MOST_NUMBERS:
        number, at = _varint(content, at)
        numbers.append(_signed(number))
    return numbers


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


def _fields(view: memoryview | int) -> Iterator[tuple[int, Any]]:
    """Number and content of each field of a message; 32- and 64-bit numbers, which are never needed, as bytes."""
    if isinstance(view, int):
        raise ValueError("a number where it should have a message")
    at, end = 0, len(view)
    while at < end:
        key, at = _varint(view, at)
        wire = key & 7
        if wire == _VARINT:
            number, at = _varint(view, at)
            yield key >> 3, number
            continue
        if wire == _BYTES:
            size, at = _varint(view, at)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise ValueError("it is not an ONNX file")
        if size > end - at:
            raise ValueError("it is cut off, or not an ONNX file")
        yield key >> 3, view[at : at + size]
        at += size


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    """The number at a position, and the position after it."""
    try:
        byte = view[at]
        if byte < 0x80:
            return byte, at + 1
        number, shift = byte & 0x7F, 7
        while byte >= 0x80:
            at += 1
            byte = view[at]
            number |= (byte & 0x7F) << shift
            shift += 7
            if shift > 70:
                raise ValueError("it is not an ONNX file")
    except IndexError:
        raise ValueError("it is cut off") from None
    return number, at + 1
