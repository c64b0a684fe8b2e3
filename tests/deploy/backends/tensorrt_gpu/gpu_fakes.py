"""A fake GPU of numpy arrays."""

import itertools
import threading
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from deploy.backends.tensorrt_gpu.cuda_interface import Device

GPU = Device("Fake GPU", "8.6", 8 << 30, "13.0", "13.0", "fake")


class MemoryCuda:
    """`deploy.backends.tensorrt_gpu.cuda.Cuda` on arrays. Work is queued, and done when its stream is synchronized.

    `calls` lists all calls in order, `alive` unreleased handles. Released memory is overwritten.
    """

    def __init__(self, device: Device = GPU) -> None:
        self.device = device
        self.calls: list[str] = []
        self.alive: dict[int, Any] = {}
        self.streams: dict[int, list[Callable[[], None]]] = {}
        self.recorded: dict[int, set[int]] = {}
        self.waited: list[tuple[int, int]] = []
        self.fail: str | None = None
        """Name of the method that is to fail."""
        self._numbers = itertools.count(1000)
        self._thread = threading.local()

    def _called(self, name: str) -> None:
        assert getattr(self._thread, "depth", 0), f"{name} outside of current()"
        self.calls.append(name)
        if self.fail == name:
            raise MemoryError(name)

    def _keep(self, owner: ExitStack, thing: Any) -> int:
        number = next(self._numbers)
        self.alive[number] = thing
        owner.callback(self._release, number)
        return number

    def _release(self, number: int) -> None:
        self._called("release")
        thing = self.alive.pop(number)
        assert self.fail == "sync" or not self.streams.pop(number, None), "released while at work"
        if isinstance(thing, np.ndarray):
            thing.view(np.uint8)[...] = 0xAB

    @contextmanager
    def current(self):
        self._thread.depth = getattr(self._thread, "depth", 0) + 1
        try:
            yield
        finally:
            self._thread.depth -= 1

    def memory(self):
        self._called("memory")
        return (8 << 30) - sum(getattr(thing, "nbytes", 0) for thing in self.alive.values()), 8 << 30

    def malloc(self, owner, size):
        self._called("malloc")
        return self._keep(owner, np.full(size, 0xCD, np.uint8))

    def host_empty(self, owner, shape, dtype):
        self._called("host_empty")
        array = np.full(shape, 0xCD, np.uint8).astype(dtype)
        self._keep(owner, array)
        return array

    def to_device(self, address, array, stream):
        self._called("to_device")
        self.queue(stream, lambda: self.write(address, array))

    def mapped(self, array):
        self._called("mapped")
        assert self.device.integrated
        return next(number for number, thing in self.alive.items() if thing is array)

    def on_device(self, target, source, size, stream):
        self._called("on_device")

        def copy():
            found = self.read(source, (size,), np.dtype(np.uint8))
            self.write(target, found)

        self.queue(stream, copy)

    def after(self, stream, other):
        self._called("after")
        self.waited.append((stream, other))

    def wait(self, event):
        self._called("wait")
        for stream in self.streams:
            if event in self.recorded.get(stream, ()):
                self.sync(stream)

    def to_host(self, array, address, stream):
        self._called("to_host")
        self.queue(stream, lambda: np.copyto(array, self.read(address, array.shape, array.dtype)))

    def stream(self, owner):
        self._called("stream")
        number = self._keep(owner, "stream")
        self.streams[number] = []
        return number

    def sync(self, stream):
        self._called("sync")
        work = self.streams[stream]
        while work:
            work.pop(0)()

    def event(self, owner):
        self._called("event")
        return self._keep(owner, [])

    def record(self, event, stream):
        self._called("record")
        self.recorded.setdefault(stream, set()).add(event)
        self.queue(stream, lambda: self.alive[event].append(len(self.calls)))

    def elapsed(self, start, end):
        self._called("elapsed")
        return float(self.alive[end][-1] - self.alive[start][-1] + 1)

    def capture(self, owner, stream, work):
        self._called("capture")
        assert not self.streams[stream]
        work()
        recorded = list(self.streams[stream])
        self.streams[stream].clear()
        self._keep(owner, "graph")
        return lambda: (self._called("launch"), self.streams[stream].extend(recorded))

    def queue(self, stream: int, work: Callable[[], None]) -> None:
        """Add work to a stream."""
        self.streams[stream].append(work)

    def write(self, address: int, array: np.ndarray) -> None:
        """Copy to "GPU" memory."""
        assert array.flags.c_contiguous
        self._bytes(address)[: array.nbytes] = array.reshape(-1).view(np.uint8)

    def read(self, address: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Copy from "GPU" memory."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        assert size <= self.alive[address].nbytes, "reads beyond its buffer"
        return self._bytes(address)[:size].view(dtype).reshape(shape).copy()

    def _bytes(self, address: int) -> np.ndarray:
        return self.alive[address].reshape(-1).view(np.uint8)
