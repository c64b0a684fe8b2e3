"""A fake of pycuda, with memory of this process as GPU memory."""

import ctypes
import threading
from types import ModuleType, SimpleNamespace

import numpy as np


class Thing:
    """An object of pycuda: it releases itself when it is collected, which must happen in its context."""

    def __init__(self, driver, size=8):
        driver.in_context()
        driver.alive.append(id(self))
        self.driver, self.work, self.memory = driver, [], ctypes.create_string_buffer(size)
        self.handle = ctypes.addressof(self.memory)

    def __int__(self):
        return self.handle

    def __del__(self):
        self.driver.in_context()
        self.driver.alive.remove(id(self))

    def synchronize(self):
        while self.work:
            self.work.pop(0)()

    def record(self, stream):
        self.work = stream.work

    def time_till(self, event):
        return 1.5


class PagelockedHostAllocation(Thing):
    def __init__(self, driver, shape, dtype, flags):
        super().__init__(driver, int(np.prod(shape)) * dtype.itemsize)
        self.flags = flags
        data, kind = (self.handle, False), dtype.str
        self.__array_interface__ = {"shape": shape, "typestr": kind, "data": data, "version": 3}
        self.freed = False

    def free(self):
        self.driver.in_context()
        self.freed = True

    def get_device_pointer(self):
        assert self.flags == FakePyCuda.host_alloc_flags.DEVICEMAP
        return self.handle

    def __del__(self):
        assert self.freed
        self.driver.alive.remove(id(self))


class FakePyCuda(ModuleType):
    """`pycuda.driver` as documented, with its rules: work only in a context that this thread made current."""

    class Error(Exception):
        pass

    class MemoryError(Error):
        pass

    def __init__(self):
        super().__init__("pycuda.driver")
        self.alive, self.stacks, self.initialized = [], threading.local(), False

    def in_context(self):
        assert getattr(self.stacks, "depth", 0), "invalid device context"

    def init(self):
        self.initialized = True

    device_attribute = SimpleNamespace(INTEGRATED=18)
    host_alloc_flags = SimpleNamespace(DEVICEMAP=2)

    def Device(self, number):
        return SimpleNamespace(
            name=lambda: "Orin" if number == 0 else "Another",
            pci_bus_id=lambda: "0000:0a:00.0",
            get_attribute=lambda attribute: {18: 1}[attribute],
            compute_capability=lambda: (8, 7),
            total_memory=lambda: 8 << 30,
            retain_primary_context=lambda: SimpleNamespace(push=self.push, pop=self.pop),
        )

    Device.count = lambda: 2  # pyright: ignore[reportFunctionMemberAccess]

    def push(self):
        self.stacks.depth = getattr(self.stacks, "depth", 0) + 1

    def pop(self):
        self.in_context()
        self.stacks.depth -= 1

    def get_driver_version(self):
        return 12060

    def get_version(self):
        return 12, 6, 0

    def mem_get_info(self):
        self.in_context()
        return 5 << 30, 8 << 30

    def pagelocked_empty(self, shape, dtype, order="C", mem_flags=0):
        return np.asarray(PagelockedHostAllocation(self, shape, dtype, mem_flags))

    def mem_alloc(self, bytes):
        return Thing(self, bytes)

    def Stream(self, flags=0):
        assert flags == 1
        return Thing(self)

    def Event(self, flags=0):
        return Thing(self)

    def memcpy_htod_async(self, dest, src, stream=None):
        stream.work.append(lambda: ctypes.memmove(dest, src.ctypes.data, src.nbytes))

    def memcpy_dtod_async(self, dest, src, size, stream=None):
        stream.work.append(lambda: ctypes.memmove(dest, src, size))

    def memcpy_dtoh_async(self, dest, src, stream=None):
        stream.work.append(lambda: ctypes.memmove(dest.ctypes.data, src, dest.nbytes))
