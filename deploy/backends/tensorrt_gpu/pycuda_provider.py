"""CUDA through pycuda."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from importlib import import_module
from typing import Any

import numpy as np

from deploy.backends.tensorrt_gpu.cuda_interface import (
    CudaError,
    Device,
    OutOfGpuMemory,
    check_index,
    version_name,
)
from deploy.errors import UserError


class PyCuda:
    """pycuda, in the primary context, which the CUDA runtime and therefore TensorRT use.

    A context belongs to a thread while it is current, so it is pushed for a call and popped after it. pycuda's objects
    release their resources when they are deleted, so they are kept here, by their handles, until the owner closes.
    """

    def __init__(self, index: int = 0) -> None:
        self._cuda: Any = import_module("pycuda.driver")
        self._cuda.init()
        check_index(index, self._cuda.Device.count())
        self._kept: dict[int, Any] = {}
        gpu = self._cuda.Device(index)
        capability = ".".join(map(str, gpu.compute_capability()))
        driver = version_name(self._cuda.get_driver_version())
        versions = driver, ".".join(map(str, self._cuda.get_version()[:2]))
        shares = bool(gpu.get_attribute(self._cuda.device_attribute.INTEGRATED))
        memory, pci = gpu.total_memory(), gpu.pci_bus_id()
        self.device = Device(gpu.name(), capability, memory, *versions, "pycuda", index, shares, pci)

    @cached_property
    def _context(self) -> Any:
        return self._cuda.Device(self.device.index).retain_primary_context()

    def _keep(self, owner: ExitStack, handle: int, thing: object) -> int:
        self._kept[handle] = thing
        owner.callback(self._kept.pop, handle)
        return handle

    @contextmanager
    def current(self) -> Iterator[None]:
        try:
            self._context.push()
            try:
                yield
            finally:
                self._context.pop()
        except self._cuda.MemoryError as error:
            raise OutOfGpuMemory(f"CUDA: {error}; free some memory or use smaller batches") from error
        except self._cuda.Error as error:
            raise CudaError(f"CUDA: {error}") from error

    def memory(self) -> tuple[int, int]:
        return self._cuda.mem_get_info()

    def malloc(self, owner: ExitStack, size: int) -> int:
        memory = self._cuda.mem_alloc(size)
        return self._keep(owner, int(memory), memory)

    def host_empty(self, owner: ExitStack, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
        flags = self._cuda.host_alloc_flags.DEVICEMAP if self.device.integrated else 0
        array = self._cuda.pagelocked_empty(tuple(shape), dtype, mem_flags=flags)
        owner.callback(array.base.free)
        return array

    def mapped(self, array: np.ndarray) -> int:
        return int(array.base.get_device_pointer())  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]

    def to_device(self, address: int, array: np.ndarray, stream: int) -> None:
        self._cuda.memcpy_htod_async(address, array, self._kept[stream])

    def to_host(self, array: np.ndarray, address: int, stream: int) -> None:
        self._cuda.memcpy_dtoh_async(array, address, self._kept[stream])

    def on_device(self, target: int, source: int, size: int, stream: int) -> None:
        self._cuda.memcpy_dtod_async(target, source, size, self._kept[stream])

    def stream(self, owner: ExitStack) -> int:
        stream = self._cuda.Stream(1)  # CU_STREAM_NON_BLOCKING
        return self._keep(owner, stream.handle, stream)

    def sync(self, stream: int) -> None:
        self._kept[stream].synchronize()

    def after(self, stream: int, other: int) -> None:
        raise UserError("pycuda cannot wait for the streams of other libraries; pip install cuda-bindings")

    def event(self, owner: ExitStack) -> int:
        event = self._cuda.Event()
        return self._keep(owner, id(event), event)

    def record(self, event: int, stream: int) -> None:
        self._kept[event].record(self._kept[stream])

    def wait(self, event: int) -> None:
        self._kept[event].synchronize()

    def elapsed(self, start: int, end: int) -> float:
        return self._kept[start].time_till(self._kept[end])

    def capture(self, owner: ExitStack, stream: int, work: Callable[[], None]) -> Callable[[], None]:
        raise UserError("pycuda offers no CUDA graphs; pip install cuda-bindings")
