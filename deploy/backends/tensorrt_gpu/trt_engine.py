"""An engine of TensorRT or TensorRT-RTX that was loaded: running it, and measuring it.

Not run on this project's CI, which has no GPU: its tests check every call against the signatures of the real libraries.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from deploy.backends.core import CORE, CORE_OUTPUTS
from deploy.backends.gpu_options import MAX_CONTEXTS, GpuOptions
from deploy.backends.tensorrt_gpu.cuda_interface import Cuda, OutOfGpuMemory
from deploy.backends.tensorrt_gpu.deserialize import deserialize, read_batches, read_tensors
from deploy.backends.tensorrt_gpu.device_arrays import DeviceArray, Seen, look_at
from deploy.backends.tensorrt_gpu.execution_lane import Lane, first_error
from deploy.backends.tensorrt_gpu.inspector import inspect_engine
from deploy.backends.tensorrt_gpu.lane_pool import LanePool
from deploy.backends.tensorrt_gpu.log import listen
from deploy.backends.tensorrt_gpu.measuring import LayerTime, event_times, layer_times, seconds_ahead
from deploy.backends.tensorrt_gpu.rtx_kernels import RtxKernels, captures_itself, kernel_file
from deploy.bundle.engine_files import Sidecar
from deploy.errors import UserError
from deploy.forks import require_same_process

OUTPUTS = {"labels": np.uint8, "logits": np.float32}
"""Outputs of `run` and their types, which do not depend on the engine's own types."""


class TrtEngine:
    """A loaded engine. `run` may be called from several threads at once (see `deploy.backends.engine.Engine`).

    Each call has an execution context, a stream and buffers of its own. They are created when first needed, kept for
    later calls, and released by `close`: there are as many as there were concurrent calls, up to
    `GpuOptions.max_contexts`.
    """

    _runtime: Any
    _engine: Any

    def __init__(
        self, engine: Path, plan: bytes, sidecar: Sidecar, cuda: Cuda, library: Any, options: GpuOptions
    ) -> None:
        self.name, self.file = f"{sidecar.backend} {sidecar.precision}", engine
        self._cuda, self._library, self._process = cuda, library, os.getpid()
        self._capture = options.cuda_graph and not captures_itself(library)
        self._wanted = OUTPUTS if options.logits else {"labels": OUTPUTS["labels"]}
        with cuda.current():
            self._runtime, self._engine = deserialize(engine, plan, sidecar, library, options)
            needed = CORE_OUTPUTS if CORE in sidecar.options else OUTPUTS
            self._tensors = read_tensors(engine, self._engine, library, needed)
            self.smallest_batch, self.largest_batch = read_batches(self._engine, self._tensors[0].name)
            self._kernels = None
            if sidecar.backend == "tensorrt-rtx":
                file = kernel_file(sidecar.sha256, library.__version__, cuda.device.name)
                self._kernels = RtxKernels(library, self._engine, file, options)
        self._lanes = LanePool(self.name, self._make_lane, options.max_contexts or MAX_CONTEXTS)

    def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """Run a batch of any size, in parts if it is too large for the engine; see `deploy.backends.engine.Engine.run`.

        Raises:
            UserError: the batch is empty, its dtype or shape is not the engine's, or memory is exhausted.
        """
        return self._run(batch, self._wanted)

    def all_outputs(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """Every output of the network by name, in the types of the engine; otherwise as `run`."""
        return self._run(batch, {tensor.name: tensor.dtype for tensor in self._tensors[1:]})

    def run_on_device(self, batch: Any) -> dict[str, DeviceArray]:
        """Run a batch that is in GPU memory, and leave the outputs there.

        Args:
            batch: at most `largest_batch` images, as for `run`, in C order, with `__cuda_array_interface__` or DLPack.

        Returns:
            "labels" and "logits" in the types of the engine, complete when this returns. Each has memory of its own,
            which is freed when it and what was made of it are gone; freeing waits for the GPU.

        Raises:
            UserError: the batch is not in the memory of this GPU, not in C order or too large; or as `run` does.
        """
        require_same_process(self._process, self.name)
        cuda, images = self._cuda, int(batch.shape[0])
        if images > self.largest_batch:
            raise UserError(
                f"{self.name}: takes at most {self.largest_batch} images on the GPU, got {images}"
            )
        with cuda.current(), self._lane(images) as (lane, size):
            seen = look_at(batch, cuda.device.index, lane.stream)
            self._check(seen)
            if not seen.contiguous:
                raise UserError(f"{self.name}: takes images in C order on the GPU; make the array contiguous")
            lane.fill_from(seen, size)
            lane.queue(copies=False)
            outputs = {name: self._copy_out(lane, name, images) for name in OUTPUTS}
            cuda.sync(lane.stream)
        return outputs

    def _copy_out(self, lane: Lane, name: str, images: int) -> DeviceArray:
        tensor = next(one for one in self._tensors if one.name == name)
        shape = (images, *tensor.shape)
        size = prod(shape) * tensor.dtype.itemsize
        with ExitStack() as owner:
            address = self._cuda.malloc(owner, size)
            lane.copy_out(name, address, size)
            return DeviceArray(address, shape, tensor.dtype, self._cuda.device.index, self._freeing(owner))

    def time(self, batch: np.ndarray, runs: int, *, copies: bool = True) -> np.ndarray:
        """Time runs of a batch by CUDA events, one after another, without a warm-up.

        Args:
            batch: at most `largest_batch` images.
            runs: number of runs.
            copies: include the copies to the GPU and back.

        Returns:
            Milliseconds of GPU time of each run, float64.
        """
        self._check(batch)
        assert len(batch) <= self.largest_batch
        with self._cuda.current(), self._lane(len(batch)) as (lane, size):
            lane.fill(batch, size)
            return event_times(self._cuda, lane, runs, copies)

    def throughput(
        self, batch: np.ndarray, runs: int, *, streams: int = 2, ahead: int = 2, copies: bool = True
    ) -> float:
        """Images per second with several streams, each with work queued ahead, without a warm-up.

        Args:
            batch: at most `largest_batch` images.
            runs: number of runs, over all streams.
            streams: how many contexts take turns; at most `GpuOptions.max_contexts`.
            ahead: runs that are queued on each before one is waited for.
            copies: include the copies to the GPU and back.

        Raises:
            UserError: too many streams.
        """
        self._check(batch)
        assert len(batch) <= self.largest_batch
        if streams > self._lanes.most:
            raise UserError(
                f"{self.name}: {streams} streams need max_contexts={streams}, it is {self._lanes.most}"
            )
        with self._cuda.current(), ExitStack() as lent:
            lanes = [lent.enter_context(self._lane(len(batch))) for _ in range(streams)]
            for lane, size in lanes:
                lane.fill(batch, size)
            seconds = seconds_ahead(self._cuda, [lane for lane, _ in lanes], runs, ahead, copies)
        return runs * len(batch) / seconds

    def profile(self, batch: np.ndarray, runs: int = 20) -> list[LayerTime]:
        """The time of each layer on a batch of at most `largest_batch` images, in a context of its own."""
        self._check(batch)
        size = max(len(batch), self.smallest_batch)
        with self._cuda.current(), closing(self._make_lane(size, capture=False)) as lane:
            lane.fill(batch, size)
            return layer_times(self._library, self._cuda, lane, runs)

    def inspect(self) -> dict[str, Any]:
        """Output of TensorRT's engine inspector: names of the layers, and more if the engine was built with them."""
        with self._cuda.current():
            return inspect_engine(self._library, self._engine)

    def close(self) -> None:
        """Release everything on the GPU; calls in progress release theirs when they end."""
        with self._cuda.current():
            if kernels := self._kernels:
                kernels.keep()
            self._lanes.close()
            self._kernels = self._engine = self._runtime = None

    def _freeing(self, owner: ExitStack) -> Callable[[int], None]:
        """A function that frees the memory of an array, on this GPU, even after `close`."""
        memory, cuda = owner.pop_all(), self._cuda

        def free(_: int) -> None:
            with suppress(Exception), cuda.current():  # the interpreter may be shutting down
                memory.close()

        return free

    def __del__(self) -> None:
        with suppress(Exception):  # not completely initialized, or the interpreter is shutting down
            self.close()

    def _check(self, batch: np.ndarray | Seen) -> None:
        wanted = self._tensors[0]
        if batch.dtype != wanted.dtype or batch.shape[1:] != wanted.shape or not batch.shape[0]:
            takes = "×".join(map(str, ("N", *wanted.shape)))
            got = "×".join(map(str, batch.shape))
            raise UserError(f"{self.name}: takes {wanted.dtype} {takes}, got {batch.dtype} {got}")

    def _run(self, batch: np.ndarray, wanted: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The outputs in `wanted`, in these types."""
        require_same_process(self._process, self.name)
        self._check(batch)
        with self._cuda.current():
            starts = range(0, len(batch), self.largest_batch)
            parts = [self._run_part(batch[start : start + self.largest_batch], wanted) for start in starts]
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _run_part(self, batch: np.ndarray, wanted: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Run a batch of at most `largest_batch` images."""
        with self._lane(len(batch)) as (lane, size):
            lane.fill(batch, size)
            lane.queue(outputs=tuple(wanted))
            outputs = {name: lane.take(name, len(batch), dtype) for name, dtype in wanted.items()}
        if kernels := self._kernels:
            kernels.ran(size)
        return outputs

    @contextmanager
    def _lane(self, images: int) -> Iterator[tuple[Lane, int]]:
        """Reserve a lane; yield it and the batch size to run there, which may be larger than `images`."""
        batch = max(images, self.smallest_batch)
        capacity = batch if self._capture else self.largest_batch  # a captured graph works for one size only
        with self._lanes.lane(capacity) as lane:
            yield lane, batch

    def _make_lane(self, capacity: int, capture: bool | None = None) -> Lane:
        capture = self._capture if capture is None else capture
        options = {"runtime_config": self._kernels.config()} if self._kernels else {}
        with listen(self._library) as messages:
            context = self._engine.create_execution_context(**options)
        if context is None:
            raise OutOfGpuMemory(
                f"{self.name}: cannot create an execution context ({first_error(messages)}); free some GPU memory"
            )
        return Lane(self._cuda, self._library, context, self._tensors, capacity, capture)
