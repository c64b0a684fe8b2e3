"""DLPack, by which libraries pass arrays on without a copy: the capsules of its protocol, written and read.

Specification: dmlc.github.io/dlpack/latest, python_spec and dlpack.h (`DLManagedTensor`, the form without a version).
"""

import ctypes
from math import prod
from typing import Any, NamedTuple

import numpy as np

from deploy.errors import UserError


class _Tensor(ctypes.Structure):
    """`DLTensor`."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    """`DLManagedTensor`."""


_Deleter = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Managed))
_Managed._fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter))

_CODES = {"i": 0, "u": 1, "f": 2, "b": 6}
"""DLPack's codes of types, by numpy's kinds."""
_KINDS = {code: kind for kind, code in _CODES.items()}
_UNUSED, _USED = b"dltensor", b"used_dltensor"

_Destructor = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, _Destructor)(
    ("PyCapsule_New", ctypes.pythonapi)
)
# Capsules by address: a destructor must not create a new reference to what is being destroyed.
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_IsValid", ctypes.pythonapi)
)
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_set_name = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_SetName", ctypes.pythonapi)
)

_exported: dict[int, tuple[object, ...]] = {}
"""What other libraries hold, by the address of its `DLManagedTensor`, and what keeps it alive."""


class Borrowed(NamedTuple):
    """An array of another library."""

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype
    contiguous: bool
    """In C order."""
    owner: object
    """Keeps the memory alive."""


class _Owner:
    """Tells the other library, once it is gone, that its array is no longer needed."""

    def __init__(self, managed: Any) -> None:
        self._managed = managed

    def __del__(self) -> None:
        if self._managed.contents.deleter:
            self._managed.contents.deleter(self._managed)


@_Deleter
def _delete(managed: Any) -> None:
    _exported.pop(ctypes.addressof(managed.contents), None)


@_Destructor
def _destroy(capsule: int) -> None:
    if _is_valid(capsule, _UNUSED):  # nobody took the array: what takes it renames the capsule
        _exported.pop(_pointer(capsule, _UNUSED), None)


def export(
    owner: object, address: int, shape: tuple[int, ...], dtype: np.dtype, device: tuple[int, int]
) -> object:
    """A capsule for another library, which keeps `owner` alive as long as that uses the array.

    Args:
        owner: of the memory.
        address: of the array, in C order.
        shape: its shape.
        dtype: its type.
        device: type of the device, such as 2 for a GPU, and its number.
    """
    sizes = (ctypes.c_int64 * len(shape))(*shape)
    bits = 8 * dtype.itemsize
    tensor = _Tensor(address, *device, len(shape), _CODES[dtype.kind], bits, 1, sizes, None, 0)
    managed = _Managed(tensor, None, _delete)
    pointer = ctypes.addressof(managed)
    _exported[pointer] = (managed, sizes, owner)
    return _new(pointer, _UNUSED, _destroy)


def borrow(capsule: object) -> Borrowed:
    """Take over the array in a capsule of another library.

    Raises:
        UserError: it is no unused capsule of DLPack, or of a type that numpy does not have.
    """
    if not _is_valid(id(capsule), _UNUSED):
        raise UserError(
            "the array cannot be taken over: its DLPack capsule was used before, or has another form"
        )
    managed = ctypes.cast(_pointer(id(capsule), _UNUSED), ctypes.POINTER(_Managed))
    tensor = managed.contents.tensor
    if tensor.code not in _KINDS or tensor.lanes != 1:
        raise UserError(
            "the array has a type that numpy does not have; convert it to the type of the engine's input"
        )
    _set_name(id(capsule), _USED)
    shape = tuple(tensor.shape[axis] for axis in range(tensor.ndim))
    dtype = np.dtype(bool if tensor.code == _CODES["b"] else f"{_KINDS[tensor.code]}{tensor.bits // 8}")
    strides = (
        tuple(tensor.strides[axis] * dtype.itemsize for axis in range(tensor.ndim))
        if tensor.strides
        else None
    )
    contiguous = strides in (None, c_strides(shape, dtype.itemsize))
    address = (tensor.data or 0) + tensor.byte_offset
    return Borrowed(address, shape, dtype, contiguous, _Owner(managed))


def c_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Strides in bytes of an array in C order."""
    return tuple(prod(shape[axis + 1 :]) * itemsize for axis in range(len(shape)))
