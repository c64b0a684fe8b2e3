"""TensorRT-RTX compiles its kernels at run time: how, and where they are kept so that a second start need not do it.

They are kept in the user's cache, not beside the engine: they are code, and whatever lies in a bundle may be another's
(see `deploy.backends.blobs`). TensorRT-RTX itself refuses kernels of another version, GPU, driver or operating system.
"""

import hashlib
from pathlib import Path
from threading import Lock
from typing import Any

from deploy.backends.blobs import keep_blob, read_blob
from deploy.backends.gpu_options import GpuOptions
from deploy.files.user_folders import cache_folder


class RtxKernels:
    """The runtime cache of an engine, shared by all its contexts, and their other settings.

    Args:
        library: the module `tensorrt_rtx`.
        engine: its `ICudaEngine`.
        file: where kernels are kept.
        options: how the engine is opened.
    """

    def __init__(self, library: Any, engine: Any, file: Path, options: GpuOptions) -> None:
        self._library, self._engine, self._file, self._options = library, engine, file, options
        self._cache: Any = engine.create_runtime_config().create_runtime_cache()
        self._lock, self._batches, self._kept = Lock(), set[int](), b""
        if blob := read_blob(file):
            self._cache.deserialize(blob)  # False if it is for another machine: new ones then take its place
            self._kept = hashlib.sha256(blob).digest()

    def config(self) -> Any:
        """A new `IRuntimeConfig` for an execution context."""
        config = self._engine.create_runtime_config()
        if self._options.cuda_graph and captures_itself(self._library):
            config.cuda_graph_strategy = self._library.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        if self._options.eager:
            eager = self._library.DynamicShapesKernelSpecializationStrategy.EAGER
            config.dynamic_shapes_kernel_specialization_strategy = eager
        config.set_runtime_cache(self._cache)
        return config

    def ran(self, batch: int) -> None:
        """Keep the kernels after the first run of a batch size."""
        with self._lock:
            first = batch not in self._batches
            self._batches.add(batch)
        if first:
            self.keep()

    def keep(self) -> None:
        """Keep the kernels that were compiled so far for later starts, unless there are no new ones."""
        with self._lock:
            memory = self._cache.serialize()
            blob = bytes(memory) if memory is not None else b""
            digest = hashlib.sha256(blob).digest()
            if blob and digest != self._kept:
                keep_blob(self._file, blob)
                self._kept = digest


def captures_itself(library: Any) -> bool:
    """Whether this library captures CUDA graphs by itself, once it has compiled its kernels for a shape."""
    return hasattr(library, "CudaGraphStrategy")


def kernel_file(engine_digest: str, version: str, gpu: str) -> Path:
    """The file of an engine's kernels, by the SHA-256 of the engine, the library's version and the GPU."""
    name = hashlib.sha256(f"{engine_digest}\n{version}\n{gpu}".encode()).hexdigest()
    return cache_folder() / f"{name}.blob"
