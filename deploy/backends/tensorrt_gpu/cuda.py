"""CUDA by one of two providers, cuda-bindings and pycuda: finding the GPU, and opening it.

Either suffices, and neither is imported before it is requested. GPUs have the numbers that the driver gives them; the
environment variable CUDA_VISIBLE_DEVICES limits and orders them. This module does not need TensorRT, so a GPU can be
looked for first: without a driver, TensorRT crashes the process.

Not run on this project's CI, which has no GPU: its tests check the calls against the signatures of the real libraries.
"""

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property, partial
from importlib import import_module
from math import prod
from typing import Any

import numpy as np

from deploy.backends.tensorrt_gpu.cuda_interface import (
    Cuda,
    CudaError,
    Device,
    OutOfGpuMemory,
    check_index,
    version_name,
)
from deploy.backends.tensorrt_gpu.pycuda_provider import PyCuda
from deploy.backends.tensorrt_gpu.signs import CUDA_13_BRANCH, cuda_packages, look, remedy
from deploy.errors import UserError


def find(index: int = 0) -> Cuda | None:
    """A GPU by its number, or None where there is no driver, no such GPU or no provider (`why_not` says which).

    Never raises.
    """
    found = _find("auto", index)
    return None if isinstance(found, str) else found


def probe(index: int = 0) -> Device | None:
    """The description of a GPU, or None, as `find` says."""
    found = find(index)
    return found.device if found else None


def why_not(index: int = 0) -> str:
    """Why `probe` finds no GPU, in words; "" if it finds one."""
    found = _find("auto", index)
    return found if isinstance(found, str) else ""


def open_cuda(provider: str = "auto", index: int = 0) -> Cuda:
    """Open a GPU through "cuda-bindings", "pycuda", or ("auto") the first of them that finds it.

    Raises:
        UserError: the provider is unknown, or finds no such GPU.
    """
    if provider not in ("auto", *PROVIDERS):
        raise UserError(f"unknown CUDA provider {provider!r}; choose one of auto, {', '.join(PROVIDERS)}")
    found = _find(provider, index)
    if isinstance(found, str):
        raise UserError(f"no usable NVIDIA GPU: {found}")
    return found


def _find(provider: str, index: int) -> Cuda | str:
    """CUDA, or one line that says why there is none."""
    missing, reasons, advised = [], [], False
    for name in PROVIDERS if provider == "auto" else [provider]:
        try:
            return PROVIDERS[name](index)
        except ModuleNotFoundError:
            missing.append(name)
        except DriverTooOld as error:
            reasons.append(f"{name}: {error}")
            advised = True
        except Exception as error:  # of any type: a broken driver must not end the program
            reasons.append(f"{name}: {' '.join(str(error).split())}")
    if not reasons:
        return f"{' and '.join(missing)} not installed: {cuda_packages(look())}"
    return "; ".join(filter(None, [*reasons, "" if advised else remedy(look())]))


class DriverTooOld(CudaError):
    """The driver is older than what the provider was made for; the message says what to do."""


def too_new(driver: int, runtime: int) -> str:
    """Why a provider does not run on a driver, by CUDA's version numbers, such as 12060 and 13050."""
    major, minor = driver // 1000, driver % 1000 // 10
    pin = f"<{major + 1}" if runtime // 1000 > major else f"<{major}.{minor + 1}"
    return (
        f"is made for CUDA {version_name(runtime)}, the GPU's driver supports {version_name(driver)} at most:"
        f" pip install 'cuda-bindings{pin}', or update the driver (CUDA 13 needs {CUDA_13_BRANCH} or later)"
    )


class CudaBindings:
    """NVIDIA's bindings of the CUDA runtime. Every call returns an error code first, which `_call` checks."""

    def __init__(self, index: int = 0) -> None:
        self._cuda: Any = import_module("cuda.bindings.runtime")
        self._driver: Any = import_module("cuda.bindings.driver")
        driver = self._call("ask for the driver", self._cuda.cudaDriverGetVersion)
        if not driver:
            raise CudaError("there is no NVIDIA driver")
        runtime = self._call("ask for its version", self._cuda.cudaRuntimeGetVersion)
        self._versions = driver, runtime
        check_index(index, self._call("count the GPUs", self._cuda.cudaGetDeviceCount))
        gpu = self._call("describe the GPU", self._cuda.cudaGetDeviceProperties, index)
        self.device = Device(
            name=gpu.name.decode(),
            compute_capability=f"{gpu.major}.{gpu.minor}",
            total_memory=gpu.totalGlobalMem,
            driver=version_name(driver),
            runtime=version_name(runtime),
            provider="cuda-bindings",
            index=index,
            integrated=bool(gpu.integrated),
            pci=f"{gpu.pciDomainID:04x}:{gpu.pciBusID:02x}:{gpu.pciDeviceID:02x}.0",
        )

    @cached_property
    def _context(self) -> Any:
        """The GPU's primary context, which the CUDA runtime and therefore TensorRT use; kept until the process ends."""
        self._drive("start the driver", self._driver.cuInit, 0)
        device = self._drive("find the GPU", self._driver.cuDeviceGet, self.device.index)
        return self._drive("use the GPU", self._driver.cuDevicePrimaryCtxRetain, device)

    def _drive(self, what: str, function: Callable[..., tuple[Any, ...]], *arguments: object) -> Any:
        """`_call` for functions of the driver, whose errors are of another type."""
        error, *values = function(*arguments)
        if error != self._driver.CUresult.CUDA_SUCCESS:
            reason = self._driver.cuGetErrorString(error)[1].decode()
            if error == self._driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
                raise OutOfGpuMemory(f"CUDA cannot {what}: {reason}; free some memory")
            raise CudaError(f"CUDA cannot {what}: {reason}")
        return values[0] if values else None

    def _call(self, what: str, function: Callable[..., tuple[Any, ...]], *arguments: object) -> Any:
        """Return the value or values of `function`; if it fails, raise an error that says `what` cannot be done."""
        error, *values = function(*arguments)
        if error == self._cuda.cudaError_t.cudaErrorInsufficientDriver:
            raise DriverTooOld(too_new(*self._versions))
        if error != self._cuda.cudaError_t.cudaSuccess:
            reason = self._cuda.cudaGetErrorString(error)[1].decode()
            if error == self._cuda.cudaError_t.cudaErrorMemoryAllocation:
                raise OutOfGpuMemory(f"CUDA cannot {what}: {reason}; free some memory or use smaller batches")
            raise CudaError(f"CUDA cannot {what}: {reason}")
        return values[0] if len(values) == 1 else tuple(values)

    @contextmanager
    def current(self) -> Iterator[None]:
        # By the driver's stack of contexts: cudaSetDevice, to return to the caller's GPU, would start a context there.
        self._drive("use the GPU", self._driver.cuCtxPushCurrent, self._context)
        try:
            yield
        finally:
            self._drive("return to the caller's GPU", self._driver.cuCtxPopCurrent)

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

    def mapped(self, array: np.ndarray) -> int:
        here = array.ctypes.data
        return int(self._call("map page-locked memory", self._cuda.cudaHostGetDevicePointer, here, 0))

    def to_device(self, address: int, array: np.ndarray, stream: int) -> None:
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        source = array.ctypes.data
        self._call("copy to the GPU", self._cuda.cudaMemcpyAsync, address, source, array.nbytes, kind, stream)

    def to_host(self, array: np.ndarray, address: int, stream: int) -> None:
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        to = array.ctypes.data
        self._call("copy from the GPU", self._cuda.cudaMemcpyAsync, to, address, array.nbytes, kind, stream)

    def on_device(self, target: int, source: int, size: int, stream: int) -> None:
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDefault  # memory that GPU and CPU share may be either's
        self._call("copy on the GPU", self._cuda.cudaMemcpyAsync, target, source, size, kind, stream)

    def stream(self, owner: ExitStack) -> int:
        flags = self._cuda.cudaStreamNonBlocking
        stream = int(self._call("create a stream", self._cuda.cudaStreamCreateWithFlags, flags))
        owner.callback(self._call, "destroy a stream", self._cuda.cudaStreamDestroy, stream)
        return stream

    def sync(self, stream: int) -> None:
        self._call("finish the work of a stream", self._cuda.cudaStreamSynchronize, stream)

    def after(self, stream: int, other: int) -> None:
        with ExitStack() as owner:  # an event may be destroyed as soon as it is waited for
            event = self.event(owner)
            self.record(event, other)
            self._call("wait for a stream", self._cuda.cudaStreamWaitEvent, stream, event, 0)

    def event(self, owner: ExitStack) -> int:
        event = int(self._call("create an event", self._cuda.cudaEventCreate))
        owner.callback(self._call, "destroy an event", self._cuda.cudaEventDestroy, event)
        return event

    def record(self, event: int, stream: int) -> None:
        self._call("record an event", self._cuda.cudaEventRecord, event, stream)

    def wait(self, event: int) -> None:
        self._call("wait for an event", self._cuda.cudaEventSynchronize, event)

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


PROVIDERS: dict[str, Callable[[int], Cuda]] = {"cuda-bindings": CudaBindings, "pycuda": PyCuda}
