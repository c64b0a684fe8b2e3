"""TensorRT on the GPU of `gpu_fakes`: types of the real library, checked against the signatures that it documents."""

import inspect
import re
import threading
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import numpy as np
import pytest

from deploy.backends.gpu_options import DEFAULT, GpuOptions
from deploy.backends.onnxruntime_cpu import OrtEngine
from deploy.backends.tensorrt_gpu.log import logger
from deploy.backends.tensorrt_gpu.trt_engine import TrtEngine
from deploy.bundle.engine_files import Sidecar, write_engine
from deploy.bundle.manifest import MODEL
from tests.deploy.backends.tensorrt_gpu.documented import VERSIONS, documented_tensorrt
from tests.deploy.backends.tensorrt_gpu.gpu_fakes import GPU, MemoryCuda
from tests.deploy.tiny import make_image

LIBRARIES = (*(f"tensorrt {version}" for version in VERSIONS), "tensorrt_rtx")
"""Libraries to take types from: TensorRT as documented, TensorRT-RTX as installed."""
ENGINE = b"an engine"
"""The only engine that the fake can load."""
TENSORS = {
    "image": ("UINT8", (-1, 32, 48, 3), True),
    "labels": ("UINT8", (-1, 32, 48), False),
    "logits": ("FLOAT", (-1, 3, 4, 6), False),
}
"""Tensors of the bundle of `tiny.make_bundle`: type, shape with the batch axis (-1 or its size), whether an input."""


LAYERS = {"conv1 + relu": 0.75, "argmax": 0.25}
"""Layers of the fake engine, and the milliseconds that they take."""


def library(name: str) -> ModuleType:
    """One of `LIBRARIES`; the test is skipped where it is not installed."""
    kind, _, version = name.partition(" ")
    return documented_tensorrt(version) if version else pytest.importorskip(kind)


def images(count: int, seed: int = 0) -> np.ndarray:
    """A batch for that bundle."""
    return np.stack([make_image(seed=seed + index) for index in range(count)])


def make_sidecar(**changes: Any) -> Sidecar:
    """The sidecar of an INT8 engine that was built on the fake GPU, except for the changes."""
    fields: dict[str, Any] = {
        "source": MODEL,
        "source_sha256": "",
        "sha256": "",
        "bytes": 0,
        "backend": "tensorrt",
        "version": "11.4.0.106",
        "precision": "int8",
        "gpu": GPU.name,
        "compute_capability": GPU.compute_capability,
        "batch": (1, 2, 4),
        "key": "",
        "build_seconds": 1.5,
    }
    return Sidecar(**fields | changes)


def open_engine(
    fake: "FakeTensorRT", folder: Path, options: GpuOptions = DEFAULT, built: dict[str, Any] | None = None
) -> TrtEngine:
    """The engine of a fake TensorRT, with a file of its own, `built` with these options."""
    sidecar = make_sidecar(backend=fake.backend, version=fake.real.__version__, options=built or {})
    path = write_engine(folder, "int8", ENGINE, sidecar)
    return TrtEngine(path, ENGINE, sidecar, fake.cuda, fake.module, options)


def assert_same(outputs: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Assert equal values, in the types that every backend returns."""
    assert {name: array.dtype for name, array in outputs.items()} == {
        "labels": np.uint8,
        "logits": np.float32,
    }
    np.testing.assert_array_equal(outputs["labels"], expected["labels"])
    np.testing.assert_array_equal(outputs["logits"], expected["logits"])


class FakeTensorRT:
    """A module like `real`, one of `LIBRARIES`, whose engine computes the ONNX `network`, on a fake GPU.

    The code under test calls autospecs of the real types; every call is checked against the signature.
    """

    def __init__(
        self,
        real: ModuleType,
        network: bytes | Path,
        tensors: dict[str, tuple[str, tuple[int, ...], bool]] = TENSORS,
        profile: tuple[int, int, int] = (1, 2, 4),
    ) -> None:
        self.real, self.tensors, self.profile = real, tensors, profile
        self.backend = real.__name__.replace("_", "-")
        self.cuda = MemoryCuda()
        self.oracle = OrtEngine(network, threads=1)
        self.network = self.oracle.run
        """What the engine computes."""
        self.contexts: list[Any] = []
        self.runs: list[int] = []
        """Batch of each execution."""
        self.machine = b"this machine"
        """Kernels that TensorRT-RTX compiled on another machine are refused."""
        self.compiled: list[int] = []
        """Batches for which TensorRT-RTX compiled kernels."""
        self.kernels: dict[int, set[bytes]] = {}
        self.caches: list[Any] = []
        self.loads = True
        """Whether the engine can be loaded."""
        self.module = SimpleNamespace(**{name: getattr(real, name) for name in dir(real)})
        self.module.Runtime = self._runtime

    def say_error(self, text: str) -> None:
        """Log an error as TensorRT does."""
        logger(self.module).log(self.real.ILogger.Severity.ERROR, text)

    def _spec(self, name: str, **methods: Callable[..., Any]) -> Any:
        kind = getattr(self.real, name)
        spec = create_autospec(kind, instance=True, spec_set=True)
        for method, does in methods.items():
            getattr(spec, method).side_effect = checked(getattr(kind, method), does)
        return spec

    def _runtime(self, log: Any) -> Any:
        assert isinstance(log, self.real.ILogger)
        return self._spec("Runtime", deserialize_cuda_engine=self._deserialize)

    def _deserialize(self, data: bytes) -> Any:
        return self._engine() if self.loads and data == ENGINE else None

    def _engine(self) -> Any:
        names = list(self.tensors)
        mode = self.real.TensorIOMode
        engine = self._spec(
            "ICudaEngine",
            get_tensor_name=lambda index: names[index],
            get_tensor_shape=lambda name: self.real.Dims(self.tensors[name][1]),
            get_tensor_dtype=lambda name: self.real.DataType.__members__[self.tensors[name][0]],
            get_tensor_mode=lambda name: mode.INPUT if self.tensors[name][2] else mode.OUTPUT,
            get_tensor_profile_shape=lambda name, profile_index: [
                self.real.Dims((n, *self.tensors[name][1][1:])) for n in self.profile
            ],
            create_execution_context=self._context,
        )
        if self.backend == "tensorrt-rtx":
            engine.create_runtime_config.side_effect = self._runtime_config
        engine.num_io_tensors = len(names)
        tell = self._spec("EngineInspector", get_engine_information=lambda format: '{"Layers": ["conv1"]}')
        engine.create_engine_inspector.side_effect = lambda: tell
        return engine

    def _runtime_config(self) -> Any:
        return self._spec(
            "IRuntimeConfig",
            create_runtime_cache=self._runtime_cache,
            set_runtime_cache=lambda cache: id(cache) in self.kernels,
        )

    def _runtime_cache(self) -> Any:
        kernels: set[bytes] = set()

        here = self.machine  # an engine that is still open when the machine changes stays on the former one

        def deserialize(blob: bytes) -> bool:
            machine, *found = blob.split(b",")
            kernels.update(found if machine == here else ())
            return machine == here

        serialize = lambda: b",".join([here, *sorted(kernels)])  # noqa: E731
        cache = self._spec("IRuntimeCache", serialize=serialize, deserialize=deserialize)
        self.kernels[id(cache)] = kernels
        self.caches.append(cache)  # so that its id stays its own
        return cache

    def _compile_kernels(self, context: SimpleNamespace, batch: int) -> None:
        """What TensorRT-RTX does at the first run of a batch size that is not in the cache of the context."""
        if config := context.options.get("runtime_config"):
            kernels = self.kernels[id(config.set_runtime_cache.call_args.args[0])]
            if b"%d" % batch not in kernels:
                self.compiled.append(batch)
                kernels.add(b"%d" % batch)

    def _context(self, **options: Any) -> Any:
        state = SimpleNamespace(address={}, shape=None, busy=threading.Lock(), options=options)

        def set_input_shape(name, shape):
            state.shape = tuple(shape)
            return self.profile[0] <= shape[0] <= self.profile[2]

        def set_tensor_address(name, memory):
            assert memory in self.cuda.alive
            state.address[name] = memory
            return name in self.tensors

        def execute_async_v3(stream_handle):
            self.cuda.calls.append("execute")
            assert set(state.address) == set(self.tensors)
            # As on a GPU, what is queued, or captured in a graph, keeps the addresses that it was given.
            self.cuda.queue(stream_handle, partial(compute, state.shape, dict(state.address)))
            return True

        def compute(shape, address):
            assert state.busy.acquire(blocking=False), "two threads in one execution context"
            self.runs.append(shape[0])
            self._compile_kernels(state, shape[0])
            if state.context.profiler is not None and state.context.enqueue_emits_profile is True:
                for name, ms in LAYERS.items():
                    state.context.profiler.report_layer_time(name, ms)
            (source,) = (name for name, tensor in self.tensors.items() if tensor[2])
            image = self.cuda.read(address[source], shape, self._dtype(source))
            for name, value in self.network(image).items():
                self.cuda.write(address[name], value.astype(self._dtype(name)))
            state.busy.release()

        context = self._spec(
            "IExecutionContext",
            set_input_shape=set_input_shape,
            set_tensor_address=set_tensor_address,
            execute_async_v3=execute_async_v3,
        )
        context.profiler, state.context = None, context
        self.contexts.append(state)
        return context

    def _dtype(self, name: str) -> np.dtype:
        return np.dtype(self.real.nptype(self.real.DataType.__members__[self.tensors[name][0]]))


TYPES: dict[str, Any] = {
    "bool": bool,
    "buffer": (bytes, bytearray, memoryview),
    "int": int,
    "str": str,
    "tuple": tuple,
    "list": list,
    "typing.SupportsInt": int,
    "typing_extensions.Buffer": (bytes, bytearray, memoryview),
}
"""Annotations of pybind11, and the types that it accepts for them."""


def checked(method: Any, does: Callable[..., Any]) -> Callable[..., Any]:
    """`does`, after checking that `method` of a compiled class accepts these arguments.

    `create_autospec` cannot check that: only the documentation of compiled methods gives their signature.
    """

    def call(*arguments: Any, **named: Any) -> Any:
        signatures = documented_signatures(method)
        if not any(_accepts(signature, arguments, named) for signature in signatures):
            raise TypeError(f"{method.__name__} takes {signatures}, not {arguments} {named}")
        return does(*arguments, **named)

    return call


def documented_signatures(method: Any) -> list[inspect.Signature]:
    """The overloads of a pybind11 method, with annotations as text."""
    return _signatures(method.__name__, method.__doc__)


@cache
def _signatures(name: str, documentation: str) -> list[inspect.Signature]:
    lines = re.findall(rf"^(?:\d+\. )?{name}\((self: .*)\) -> .*$", documentation, re.MULTILINE)
    assert lines, f"{name} documents no signature"
    signatures = []
    for line in lines:
        scope: dict[str, Any] = {}
        line = re.sub("<[^>]*>", "None", line).replace("::", ".")
        code = f"from __future__ import annotations\ndef f({line}): ..."
        exec(code, scope)
        signatures.append(inspect.signature(scope["f"]))
    return signatures


def _accepts(signature: inspect.Signature, arguments: tuple[Any, ...], named: dict[str, Any]) -> bool:
    try:
        bound = signature.bind(None, *arguments, **named)
    except TypeError:
        return False
    kinds = (
        (TYPES.get(signature.parameters[name].annotation, object), value)
        for name, value in bound.arguments.items()
    )
    return all(isinstance(value, kind) for kind, value in kinds)
