"""Arrays in GPU memory, passed between libraries without a copy to the CPU.

Read are arrays that tell their address by DLPack (PyTorch, CuPy, JAX) or by `__cuda_array_interface__` (Numba, PyCUDA).
DLPack is preferred: only by it can PyTorch make our stream wait for its own. Written is `DeviceArray`, which has both.

Specifications: numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html, dmlc.github.io/dlpack/latest.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from deploy.backends.tensorrt_gpu import dlpack
from deploy.errors import UserError

CUDA, CUDA_MANAGED = 2, 13
"""Types of device in DLPack: memory of a GPU, and memory that GPU and CPU share."""
LEGACY_STREAM = 1
"""CUDA's default stream."""


class Seen(NamedTuple):
    """An array of another library."""

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype
    contiguous: bool
    """In C order."""
    stream: int | None
    """A stream whose work must be done before the array is read; None if there is none to wait for."""
    owner: object
    """Keeps the memory alive."""


class DeviceArray:
    """An array in GPU memory, whose work is done. Its memory is reused once it and all that was made of it are gone.

    Args:
        address: of the memory.
        shape: its shape, in C order.
        dtype: its type.
        device: number of the GPU.
        release: called with the address when the array is gone.
    """

    def __init__(
        self,
        address: int,
        shape: tuple[int, ...],
        dtype: np.dtype,
        device: int,
        release: Callable[[int], object],
    ) -> None:
        self.address, self.shape, self.dtype, self.device = address, shape, dtype, device
        self._release = release

    def __del__(self) -> None:
        self._release(self.address)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        data = (self.address, False)
        return {"version": 3, "shape": self.shape, "typestr": self.dtype.str, "data": data, "stream": None}

    def __dlpack_device__(self) -> tuple[int, int]:
        return CUDA, self.device

    def __dlpack__(self, **_: object) -> object:
        return dlpack.export(self, self.address, self.shape, self.dtype, self.__dlpack_device__())


def look_at(array: Any, device: int, stream: int) -> Seen:
    """Where an array is, and what it holds.

    Args:
        array: an array of another library.
        device: number of the GPU that it must be on, as far as it tells.
        stream: the stream that will read it; a library that speaks DLPack makes it wait for its own work.

    Raises:
        UserError: it is on the CPU or on another GPU, or is no array.
    """
    if not hasattr(array, "__dlpack_device__"):
        interface = getattr(array, "__cuda_array_interface__", None)
        if interface is None:
            raise UserError(
                f"{type(array).__name__}: has neither __dlpack__ nor __cuda_array_interface__; give an array on the GPU"
            )
        return _by_interface(array, interface)
    kind, where = array.__dlpack_device__()
    if int(kind) not in (CUDA, CUDA_MANAGED):
        raise UserError("the array is not in GPU memory; give it to run() as a numpy array")
    if int(kind) == CUDA and where != device:
        raise UserError(
            f"the array is on GPU {where}, the engine on GPU {device}; copy it, or load with device={where}"
        )
    found = dlpack.borrow(array.__dlpack__(stream=stream))
    return Seen(found.address, found.shape, found.dtype, found.contiguous, None, found.owner)


def _by_interface(array: object, interface: dict[str, Any]) -> Seen:
    shape, dtype = tuple(interface["shape"]), np.dtype(interface["typestr"])
    strides = interface.get("strides")
    contiguous = strides is None or tuple(strides) == dlpack.c_strides(shape, dtype.itemsize)
    # Before version 3 of the interface nothing tells the stream: then the default one.
    stream = interface.get("stream", LEGACY_STREAM)
    return Seen(interface["data"][0], shape, dtype, contiguous, stream, array)
