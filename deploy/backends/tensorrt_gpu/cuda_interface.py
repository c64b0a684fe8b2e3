"""What the TensorRT backend needs of CUDA: the interface of its two providers, and their errors."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from deploy.errors import UserError


class CudaError(UserError):
    """A CUDA call failed; the message says what it was for, and why. The process may be unable to use the GPU again."""


class OutOfGpuMemory(UserError):
    """There is too little memory on the GPU, or page-locked memory; nothing is broken."""


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
    index: int = 0
    """Its number among those that the driver shows, which the environment variable CUDA_VISIBLE_DEVICES limits."""
    integrated: bool = False
    """Whether it shares its memory with the CPU, as on a Jetson."""
    pci: str = ""
    """Its address on the PCI bus, by which NVIDIA's management library knows it, such as "0000:01:00.0"."""


class Cuda(Protocol):
    """Memory, streams, events and graphs of one GPU. Addresses and handles are integers, sizes are in bytes.

    Every method must be called inside a `with cuda.current()` of the calling thread. What a method creates is released
    by the `owner` passed to it, so a failure halfway leaks nothing. Failed calls raise `CudaError`, exhausted memory
    `OutOfGpuMemory`, a provider without CUDA graphs a plain `UserError`.
    """

    @property
    def device(self) -> Device: ...

    # Select the GPU for this thread. At the end of the block the caller's is selected again, or none if there was none.
    def current(self) -> AbstractContextManager[None]: ...

    # Free and total memory of the GPU.
    def memory(self) -> tuple[int, int]: ...

    # Allocate on the GPU; returns the address.
    def malloc(self, owner: ExitStack, size: int) -> int: ...

    # An array in page-locked memory, which the GPU copies directly. Must not be used after its release.
    def host_empty(self, owner: ExitStack, shape: Sequence[int], dtype: np.dtype) -> np.ndarray: ...

    # The address by which the GPU itself reads and writes an array of `host_empty`.
    def mapped(self, array: np.ndarray) -> int: ...

    # Queue a copy from, or into, a contiguous page-locked array; or from one place on the GPU to another.
    def to_device(self, address: int, array: np.ndarray, stream: int) -> None: ...
    def to_host(self, array: np.ndarray, address: int, stream: int) -> None: ...
    def on_device(self, target: int, source: int, size: int, stream: int) -> None: ...

    # A queue of work that waits for no other stream; wait until it is done; let it wait for what another has queued.
    def stream(self, owner: ExitStack) -> int: ...
    def sync(self, stream: int) -> None: ...
    def after(self, stream: int, other: int) -> None: ...

    # An event; queue its recording on the stream; wait for it; milliseconds between two recorded events.
    def event(self, owner: ExitStack) -> int: ...
    def record(self, event: int, stream: int) -> None: ...
    def wait(self, event: int) -> None: ...
    def elapsed(self, start: int, end: int) -> float: ...

    # A function that queues, in one call, everything that `work` queues on the stream. The capture itself runs nothing.
    def capture(self, owner: ExitStack, stream: int, work: Callable[[], None]) -> Callable[[], None]: ...


def version_name(number: int) -> str:
    """Format CUDA's version number, such as 13050 for 13.5."""
    return f"{number // 1000}.{number % 1000 // 10}"


def check_index(index: int, count: int) -> None:
    """Refuse a GPU that the driver does not show.

    Raises:
        CudaError: it shows `count` of them.
    """
    if not count:
        raise CudaError("the driver sees no GPU")
    if not 0 <= index < count:
        numbers = "only device 0" if count == 1 else f"devices 0 to {count - 1}"
        raise CudaError(f"there is no device {index}, {numbers} (CUDA_VISIBLE_DEVICES hides others)")
