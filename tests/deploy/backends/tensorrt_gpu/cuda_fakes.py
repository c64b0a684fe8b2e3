"""Fakes of the libraries below `deploy.backends.tensorrt_gpu.cuda`, with memory of this process as GPU memory."""

import ctypes
import inspect
import threading
from operator import attrgetter
from types import SimpleNamespace


class Checked:
    """A module of `cuda.bindings` whose functions are methods of this class. Each call must fit the real signature.

    `fail` maps names of functions to the error that they return.
    """

    prefix, success = "cuda", "cudaError_t.cudaSuccess"
    pure = ("cudaGetErrorString",)
    """Real functions that need no driver."""

    def __init__(self, real):
        self._real, self.fail = real, {}

    def __getattr__(self, name):
        real = getattr(self._real, name)
        if not name.startswith(self.prefix) or isinstance(real, type | int) or name in self.pure:
            return real
        signature, does = inspect.signature(real), getattr(self, f"_{name}")

        def call(*arguments):
            signature.bind(*arguments)
            if error := self.fail.get(name) or self.refusal(name):
                return error, *[None] * 3
            values = does(*arguments)
            return attrgetter(self.success)(self._real), *(() if values is None else values)

        return call

    def refusal(self, name):
        """The error of every call of this function, if there is one."""


class FakeDriver(Checked):
    """`cuda.bindings.driver`: the stack of contexts of each thread, as (thread, device) in `pushed` and `popped`."""

    prefix, success, pure = "cu", "CUresult.CUDA_SUCCESS", ()

    def __init__(self, real):
        super().__init__(real)
        self.pushed, self.popped, self.retained = [], [], []
        self.stacks = threading.local()

    @property
    def current(self):
        """Device of the calling thread's current context; None if it has none."""
        return (getattr(self.stacks, "contexts", None) or [None])[-1]

    def cuGetErrorString(self, error):
        return None, error.name.lower().encode()

    def _cuInit(self, flags):
        assert flags == 0

    def _cuDeviceGet(self, ordinal):
        return [self._real.CUdevice(ordinal)]

    def _cuDevicePrimaryCtxRetain(self, device):
        self.retained.append(int(device))
        return [f"context of {int(device)}"]

    def _cuCtxPushCurrent(self, context):
        device = int(context.rpartition(" ")[2])
        self.stacks.contexts = [*getattr(self.stacks, "contexts", []), device]
        self.pushed.append((threading.get_ident(), device))

    def _cuCtxPopCurrent(self):
        self.popped.append((threading.get_ident(), self.stacks.contexts.pop()))
        return ["a context"]


class FakeRuntime(Checked):
    """`cuda.bindings.runtime` with memory of this process as GPU memory. Each call must fit the real signature.

    `alive` maps unreleased handles to their kind. As cudart, it refuses all work if it was made for a later CUDA major
    than the driver supports, or if there is no driver; minor versions do not matter.
    """

    def __init__(self, real):
        super().__init__(real)
        self.alive, self.work, self.capturing = {}, {}, None
        self.supports, self.made_for = 12060, 12090
        self.device_memory, self.waiting = [], []

    def _keep(self, what):
        memory = (
            ctypes.create_string_buffer(what) if isinstance(what, int) else ctypes.create_string_buffer(8)
        )
        self.alive[ctypes.addressof(memory)] = memory
        return [ctypes.addressof(memory)]

    def _release(self, number):
        del self.alive[int(number)]

    def _queue(self, stream, work):
        (self.capturing if self.capturing is not None else self.work[int(stream)]).append(work)

    def refusal(self, name):
        needs_driver = name not in ("cudaDriverGetVersion", "cudaRuntimeGetVersion")
        if needs_driver and self.made_for // 1000 > self.supports // 1000:
            return self._real.cudaError_t.cudaErrorInsufficientDriver
        return None

    def _cudaDriverGetVersion(self):
        return [self.supports]

    def _cudaRuntimeGetVersion(self):
        return [self.made_for]

    def _cudaGetDeviceCount(self):
        return [2]

    def _cudaGetDeviceProperties(self, device):
        name = b"Orin" if device == 0 else b"Another"
        pci = {"pciDomainID": 0, "pciBusID": 10, "pciDeviceID": 0}
        return [SimpleNamespace(name=name, major=8, minor=7, totalGlobalMem=8 << 30, integrated=1, **pci)]

    def _cudaMemGetInfo(self):
        return 5 << 30, 8 << 30

    def _cudaMalloc(self, size):
        self.device_memory += (memory := self._keep(size))
        return memory

    _cudaMallocHost = _keep
    _cudaFree = _cudaFreeHost = _cudaStreamDestroy = _cudaEventDestroy = _release
    _cudaGraphDestroy = _cudaGraphExecDestroy = _release

    def _cudaStreamCreateWithFlags(self, flags):
        assert flags == self._real.cudaStreamNonBlocking
        [number] = self._keep("stream")
        self.work[number] = []
        return [self._real.cudaStream_t(number)]

    def _cudaEventCreate(self):
        return [self._real.cudaEvent_t(*self._keep("event"))]

    def _cudaMemcpyAsync(self, dst, src, count, kind, stream):
        # 1: to the GPU, 2: from it, 4: the driver finds out
        kinds = {(False, True): 1, (True, False): 2, (True, True): 4}
        assert kind == self._real.cudaMemcpyKind(kinds[src in self.device_memory, dst in self.device_memory])
        self._queue(stream, lambda: ctypes.memmove(dst, src, count))

    def _cudaStreamSynchronize(self, stream):
        while self.work[stream]:
            self.work[stream].pop(0)()

    def _cudaHostGetDevicePointer(self, host, flags):
        assert flags == 0
        return [host]

    def _cudaStreamWaitEvent(self, stream, event, flags):
        assert int(event) in self.alive
        self.waiting.append(int(stream))

    def _cudaEventSynchronize(self, event):
        for stream in self.work:
            self._cudaStreamSynchronize(stream)

    def _cudaEventRecord(self, event, stream):
        self._queue(stream, lambda: None)

    def _cudaEventElapsedTime(self, start, end):
        return [1.5]

    def _cudaStreamBeginCapture(self, stream, mode):
        assert mode == self._real.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.capturing = []

    def _cudaStreamEndCapture(self, stream):
        self.recorded, self.capturing = self.capturing, None
        return [self._real.cudaGraph_t(*self._keep("graph"))]

    def _cudaGraphInstantiate(self, graph, flags):
        return [self._real.cudaGraphExec_t(*self._keep("graph"))]

    def _cudaGraphLaunch(self, graph, stream):
        self.work[stream] += self.recorded
