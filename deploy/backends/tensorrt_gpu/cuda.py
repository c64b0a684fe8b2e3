"""The parts of CUDA that the TensorRT backend needs: a small interface with two providers, cuda-bindings and pycuda.

Either suffices, and neither is imported before it is requested. The GPU is the first one that the process sees; the
environment variable CUDA_VISIBLE_DEVICES selects another. This module does not need TensorRT, so a GPU can be looked
for first: without a driver, TensorRT crashes the process.

Not run on this project's CI, which has no GPU: its tests check the calls against the signatures of the real libraries.
"""

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import import_module
from math import prod
from typing import Any, Protocol

import numpy as np

from deploy.errors import UserError


class CudaError(UserError):
    """A CUDA call failed; the message says what it was for, and why. The process may be unable to use the GPU again."""


@dataclass(frozen=True)
class Device:
    """A GPU."""

    name: str
    compute_capability: str
    """The compute capability, such as "8.6"."""
    total_memory: int
    """In bytes."""
    driver: str
    """Newest CUDA version that the driver supports, such as "13.0"."""
    runtime: str
    """CUDA version that the provider was built for."""
    provider: str
    """"cuda-bindings" or "pycuda"."""


class Cuda(Protocol):
    """Memory, streams, events and graphs of one GPU. Addresses and handles are integers, sizes are in bytes.

    Every method must be called inside a `with cuda.current()` of the calling thread. What a method creates is released
    by the `owner` passed to it, so a failure halfway leaks nothing. Failed calls raise `CudaError`; exhausted memory,
    or a provider without CUDA graphs, raises a plain `UserError`.
    """

    @property
    def device(self) -> Device: ...

    # Select the GPU for this thread, until the block ends.
    def current(self) -> AbstractContextManager[None]: ...

    # Free and total memory of the GPU.
    def memory(self) -> tuple[int, int]: ...

    # Allocate on the GPU; returns the address.
    def malloc(self, owner: ExitStack, size: int) -> int: ...

    # An array in page-locked memory, which the GPU copies directly. Must not be used after its release.
    def host_empty(self, owner: ExitStack, shape: Sequence[int], dtype: np.dtype) -> np.ndarray: ...

    # Queue a copy from, or into, a contiguous page-locked array.
    def to_device(self, address: int, array: np.ndarray, stream: int) -> None: ...
    def to_host(self, array: np.ndarray, address: int, stream: int) -> None: ...

    # A queue of work that waits for no other stream; wait until it is done.
    def stream(self, owner: ExitStack) -> int: ...
    def sync(self, stream: int) -> None: ...

    # An event; queue its recording on the stream; milliseconds between two recorded events.
    def event(self, owner: ExitStack) -> int: ...
    def record(self, event: int, stream: int) -> None: ...
    def elapsed(self, start: int, end: int) -> float: ...

    # A function that queues, in one call, everything that `work` queues on the stream. The capture itself runs nothing.
    def capture(self, owner: ExitStack, stream: int, work: Callable[[], None]) -> Callable[[], None]: ...


def probe() -> Device | None:
    """The GPU, or None where there is no driver, no GPU or no provider (`why_not` says which). Never raises."""
    found = _find("auto")
    return None if isinstance(found, str) else found.device


def why_not() -> str:
    """Why `probe` finds no GPU, in words; "" if it finds one."""
    found = _find("auto")
    return found if isinstance(found, str) else ""


def open_cuda(provider: str = "auto") -> Cuda:
    """Open CUDA through "cuda-bindings", "pycuda", or ("auto") the first of them that finds a GPU.

    Raises:
        UserError: the provider is unknown, or finds no GPU.
    """
    if provider not in ("auto", *PROVIDERS):
        raise UserError(f"unknown CUDA provider {provider!r}; choose one of auto, {', '.join(PROVIDERS)}")
    found = _find(provider)
    if isinstance(found, str):
        raise UserError(f"no usable NVIDIA GPU: {found}")
    return found


def _find(provider: str) -> Cuda | str:
    """CUDA, or one line that says why there is none."""
    missing, reasons = [], []
    for name in PROVIDERS if provider == "auto" else [provider]:
        try:
            return PROVIDERS[name]()
        except ModuleNotFoundError:
            missing.append(name)
        except Exception as error:  # of any type: a broken driver must not end the program
            reasons.append(f"{name}: {' '.join(str(error).split())}")
    return "; ".join(reasons) or f"{' and '.join(missing)} not installed (pip install cuda-bindings)"


def _version(number: int) -> str:
    """Format CUDA's version number, such as 13050 for 13.5."""
    return f"{number // 1000}.{number % 1000 // 10}"


class CudaBindings:
    """NVIDIA's bindings of the CUDA runtime. Every call returns an error code first, which `_call` checks."""

    def __init__(self) -> None:
        self._cuda: Any = import_module("cuda.bindings.runtime")
        driver = self._call("ask for the driver", self._cuda.cudaDriverGetVersion)
        if not driver:
            raise CudaError("there is no NVIDIA driver")
        if not self._call("count the GPUs", self._cuda.cudaGetDeviceCount):
            raise CudaError("the driver sees no GPU")
        gpu = self._call("describe the GPU", self._cuda.cudaGetDeviceProperties, 0)
        runtime_version = self._call("ask for its version", self._cuda.cudaRuntimeGetVersion)
        capability = f"{gpu.major}.{gpu.minor}"
        versions = _version(driver), _version(runtime_version)
        self.device = Device(gpu.name.decode(), capability, gpu.totalGlobalMem, *versions, "cuda-bindings")

    def _call(self, what: str, function: Callable[..., tuple[Any, ...]], *arguments: object) -> Any:
        """Return the value or values of `function`; if it fails, raise an error that says `what` cannot be done."""
        error, *values = function(*arguments)
        if error != self._cuda.cudaError_t.cudaSuccess:
            reason = self._cuda.cudaGetErrorString(error)[1].decode()
            if error == self._cuda.cudaError_t.cudaErrorMemoryAllocation:
                raise UserError(f"CUDA cannot {what}: {reason}; free some memory or use smaller batches")
            raise CudaError(f"CUDA cannot {what}: {reason}")
        return values[0] if len(values) == 1 else tuple(values)

    @contextmanager
    def current(self) -> Iterator[None]:
        self._call("use the GPU", self._cuda.cudaSetDevice, 0)
        yield

    def memory(self) -> tuple[int, int]:
        return self._call("ask for free memory", self._cuda.cudaMemGetInfo)

    def malloc(self, owner: ExitStack, size: int) -> int:
        address = int(self._call(f"allocate {size:,} bytes on the GPU", self._cuda.cudaMalloc, size))
        owner.callback(self._call, "free memory", self._cuda.cudaFree, address)
        return address

    def host_empty(self, owner: ExitStack, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
        size = prod(shape) * dtype.itemsize
        address = int(self._call(f"allocate {size:,} page-locked bytes", self._cuda.cudaMallocHost, size))
        owner.callback(self._call, "free page-locked memory", self._cuda.cudaFreeHost, address)
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address)).view(dtype).reshape(shape)

    def to_device(self, address: int, array: np.ndarray, stream: int) -> None:
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        source = array.ctypes.data
        self._call("copy to the GPU", self._cuda.cudaMemcpyAsync, address, source, array.nbytes, kind, stream)

    def to_host(self, array: np.ndarray, address: int, stream: int) -> None:
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        to = array.ctypes.data
        self._call("copy from the GPU", self._cuda.cudaMemcpyAsync, to, address, array.nbytes, kind, stream)

    def stream(self, owner: ExitStack) -> int:
        flags = self._cuda.cudaStreamNonBlocking
        stream = int(self._call("create a stream", self._cuda.cudaStreamCreateWithFlags, flags))
        owner.callback(self._call, "destroy a stream", self._cuda.cudaStreamDestroy, stream)
        return stream

    def sync(self, stream: int) -> None:
        self._call("finish the work of a stream", self._cuda.cudaStreamSynchronize, stream)

    def event(self, owner: ExitStack) -> int:
        event = int(self._call("create an event", self._cuda.cudaEventCreate))
        owner.callback(self._call, "destroy an event", self._cuda.cudaEventDestroy, event)
        return event

    def record(self, event: int, stream: int) -> None:
        self._call("record an event", self._cuda.cudaEventRecord, event, stream)

    def elapsed(self, start: int, end: int) -> float:
        return self._call("measure a time", self._cuda.cudaEventElapsedTime, start, end)

    def capture(self, owner: ExitStack, stream: int, work: Callable[[], None]) -> Callable[[], None]:
        # Thread-local: what other threads do meanwhile, such as allocating memory, does not invalidate the capture.
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("begin a graph", self._cuda.cudaStreamBeginCapture, stream, mode)
        try:
            work()
        except BaseException:
            self._cuda.cudaStreamEndCapture(stream)  # fails as well, but makes the stream usable again
            raise
        graph = self._call("capture a graph", self._cuda.cudaStreamEndCapture, stream)
        with ExitStack() as template:
            template.callback(self._call, "destroy a graph", self._cuda.cudaGraphDestroy, graph)
            runnable = int(self._call("instantiate a graph", self._cuda.cudaGraphInstantiate, graph, 0))
        owner.callback(self._call, "destroy a graph", self._cuda.cudaGraphExecDestroy, runnable)
        return partial(self._call, "launch a graph", self._cuda.cudaGraphLaunch, runnable, stream)


class PyCuda:
    """pycuda, in the primary context, which the CUDA runtime and therefore TensorRT use.

    A context belongs to a thread while it is current, so it is pushed for a call and popped after it. pycuda's objects
    release their resources when they are deleted, so they are kept here, by their handles, until the owner closes.
    """

    def __init__(self) -> None:
        self._cuda: Any = import_module("pycuda.driver")
        self._cuda.init()
        if not self._cuda.Device.count():
            raise CudaError("the driver sees no GPU")
        self._kept: dict[int, Any] = {}
        gpu = self._cuda.Device(0)
        capability = ".".join(map(str, gpu.compute_capability()))
        versions = _version(self._cuda.get_driver_version()), ".".join(map(str, self._cuda.get_version()[:2]))
        self.device = Device(gpu.name(), capability, gpu.total_memory(), *versions, "pycuda")

    @cached_property
    def _context(self) -> Any:
        return self._cuda.Device(0).retain_primary_context()

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
            raise UserError(f"CUDA: {error}; free some memory or use smaller batches") from error
        except self._cuda.Error as error:
            raise CudaError(f"CUDA: {error}") from error

    def memory(self) -> tuple[int, int]:
        return self._cuda.mem_get_info()

    def malloc(self, owner: ExitStack, size: int) -> int:
        memory = self._cuda.mem_alloc(size)
        return self._keep(owner, int(memory), memory)

    def host_empty(self, owner: ExitStack, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
        array = self._cuda.pagelocked_empty(tuple(shape), dtype)
        owner.callback(array.base.free)
        return array

    def to_device(self, address: int, array: np.ndarray, stream: int) -> None:
        self._cuda.memcpy_htod_async(address, array, self._kept[stream])

    def to_host(self, array: np.ndarray, address: int, stream: int) -> None:
        self._cuda.memcpy_dtoh_async(array, address, self._kept[stream])

    def stream(self, owner: ExitStack) -> int:
        stream = self._cuda.Stream(1)  # CU_STREAM_NON_BLOCKING
        return self._keep(owner, stream.handle, stream)

    def sync(self, stream: int) -> None:
        self._kept[stream].synchronize()

    def event(self, owner: ExitStack) -> int:
        event = self._cuda.Event()
        return self._keep(owner, id(event), event)

    def record(self, event: int, stream: int) -> None:
        self._kept[event].record(self._kept[stream])

    def elapsed(self, start: int, end: int) -> float:
        return self._kept[start].time_till(self._kept[end])

    def capture(self, owner: ExitStack, stream: int, work: Callable[[], None]) -> Callable[[], None]:
        raise UserError("pycuda offers no CUDA graphs; pip install cuda-bindings")


PROVIDERS: dict[str, Callable[[], Cuda]] = {"cuda-bindings": CudaBindings, "pycuda": PyCuda}
