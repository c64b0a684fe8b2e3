"""TensorRT and TensorRT-RTX: run engines that `edgedistill build` compiled for this GPU.

The GPU is probed before TensorRT is imported: on a machine without a driver, TensorRT's runtime ends the process with a
segmentation fault. Not run on this project's CI, which has no GPU: its tests check every call against the signatures of
the real libraries.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from deploy.backends.gpu_options import DEFAULT, MAX_CONTEXTS, GpuOptions
from deploy.backends.tensorrt_gpu.compatibility import (
    UntrustedEngine,
    build_command,
    check_fits,
    check_trusted,
    full_name,
    tuned_for,
)
from deploy.backends.tensorrt_gpu.cuda import open_cuda
from deploy.backends.tensorrt_gpu.cuda_interface import Cuda, Device, OutOfGpuMemory
from deploy.backends.tensorrt_gpu.deserialize import deserialize, read_batches, read_tensors
from deploy.backends.tensorrt_gpu.execution_lane import Lane, first_error
from deploy.backends.tensorrt_gpu.inspector import inspect_engine
from deploy.backends.tensorrt_gpu.lane_pool import LanePool
from deploy.backends.tensorrt_gpu.log import listen
from deploy.backends.tensorrt_gpu.packages import check_cuda_major, import_tensorrt
from deploy.backends.tensorrt_gpu.rtx_kernels import RtxKernels, captures_itself, kernel_file
from deploy.bundle.bundle_files import read_manifest
from deploy.bundle.engine_files import RebuildNeeded, Sidecar, list_engines, read_engine, read_sidecar
from deploy.errors import UserError, warn

PRECISIONS = ("int8", "fp8", "fp16", "fp32")
"""In the order in which "auto" tries them."""
OUTPUTS = {"labels": np.uint8, "logits": np.float32}
"""Outputs of `run` and their types, which do not depend on the engine's own types."""


def open_trt(
    bundle: Path,
    backend: str,
    precision: str = "auto",
    *,
    engine: Path | None = None,
    provider: str = "auto",
    options: GpuOptions = DEFAULT,
) -> "TrtEngine":
    """Open the bundle's newest engine that is trusted, fits this machine and did not fail its accuracy gate.

    Args:
        bundle: folder of the bundle.
        backend: "tensorrt" or "tensorrt-rtx".
        precision: "auto" takes the lowest that has a fitting engine, with a warning if the bundle has a lower one.
        engine: open this engine, whether it passed its gate or not.
        provider: one of `deploy.backends.tensorrt_gpu.cuda.PROVIDERS`, or "auto".
        options: GPU, trust, and how to run.

    Raises:
        UserError: there is no engine, or none is trusted and fits (another model, version or GPU, a damaged file); the
            message then has the command that builds one. Also if there is no such GPU, or the library is not installed.
    """
    manifest = read_manifest(bundle)
    candidates = _candidates(bundle, backend, precision, engine)
    cuda = open_cuda(provider, options.device)
    check_cuda_major(backend, cuda.device)
    library = import_tensorrt(backend)
    refusals: list[tuple[Sidecar, str]] = []
    for path, side in candidates:
        try:
            check_fits(path, side, manifest, cuda.device, library.__version__, judged=engine is not None)
            plan = read_engine(path, side)
            check_trusted(path, side, options)
            opened = TrtEngine(path, plan, side, cuda, library, options)
        except (RebuildNeeded, UntrustedEngine) as error:
            refusals.append((side, f"{error}: {build_command(bundle, side, cuda.device)}"))
            continue
        except UserError as error:
            refusals.append((side, str(error)))
            continue
        _warn_of(bundle, path, side, refusals, cuda.device)
        return opened
    raise UserError(refusals[0][1])


def _warn_of(
    bundle: Path, path: Path, side: Sidecar, refusals: list[tuple[Sidecar, str]], gpu: Device
) -> None:
    """Say that a better engine was passed over, or that this one is for another GPU."""
    # An engine for another machine beside one for this machine needs no warning.
    passed_over = [
        why for other, why in refusals if other.precision != side.precision or other.passed is False
    ]
    if passed_over:
        warn(f"{passed_over[0]}; running {path.name} instead")
    if other := tuned_for(side, gpu):
        command = build_command(bundle, side, gpu)
        warn(f"{path}: its kernels were chosen on {other}, this GPU is {full_name(gpu)}: {command}")


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
        self._cuda, self._library = cuda, library
        self._capture = options.cuda_graph and not captures_itself(library)
        with cuda.current():
            self._runtime, self._engine = deserialize(engine, plan, sidecar, library, options)
            self._tensors = read_tensors(engine, self._engine, library)
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
        self._check(batch)
        with self._cuda.current():
            starts = range(0, len(batch), self.largest_batch)
            parts = [self._run(batch[start : start + self.largest_batch]) for start in starts]
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def time(self, batch: np.ndarray, runs: int, *, copies: bool = True) -> np.ndarray:
        """Time runs of a batch by CUDA events, without a warm-up.

        Args:
            batch: at most `largest_batch` images.
            runs: number of runs.
            copies: include the copies to the GPU and back.

        Returns:
            Milliseconds of GPU time of each run, float64.
        """
        self._check(batch)
        assert len(batch) <= self.largest_batch
        cuda = self._cuda
        with cuda.current(), self._lane(len(batch)) as (lane, size), ExitStack() as owner:
            lane.fill(batch, size)
            start, end = cuda.event(owner), cuda.event(owner)
            times = []
            for _ in range(runs):
                cuda.record(start, lane.stream)
                lane.queue(copies)
                cuda.record(end, lane.stream)
                cuda.sync(lane.stream)
                times.append(cuda.elapsed(start, end))
        return np.array(times)

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

    def __del__(self) -> None:
        with suppress(Exception):  # not completely initialized, or the interpreter is shutting down
            self.close()

    def _check(self, batch: np.ndarray) -> None:
        wanted = self._tensors[0]
        if batch.dtype != wanted.dtype or batch.shape[1:] != wanted.shape or not len(batch):
            takes = "×".join(map(str, ("N", *wanted.shape)))
            got = "×".join(map(str, batch.shape))
            raise UserError(f"{self.name}: takes {wanted.dtype} {takes}, got {batch.dtype} {got}")

    def _run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """Run a batch of at most `largest_batch` images."""
        with self._lane(len(batch)) as (lane, size):
            lane.fill(batch, size)
            lane.queue()
            outputs = {name: lane.take(name, len(batch), dtype) for name, dtype in OUTPUTS.items()}
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

    def _make_lane(self, capacity: int) -> Lane:
        options = {"runtime_config": self._kernels.config()} if self._kernels else {}
        with listen(self._library) as messages:
            context = self._engine.create_execution_context(**options)
        if context is None:
            raise OutOfGpuMemory(
                f"{self.name}: cannot create an execution context ({first_error(messages)}); free some GPU memory"
            )
        return Lane(self._cuda, self._library, context, self._tensors, capacity, self._capture)


def _candidates(
    bundle: Path, backend: str, precision: str, engine: Path | None
) -> list[tuple[Path, Sidecar]]:
    """The requested engines, in the order in which they are tried. Raises `UserError` if there are none."""
    damaged: list[str] = []
    found = [(engine, read_sidecar(engine))] if engine else list_engines(bundle, backend, refusals=damaged)
    wanted = PRECISIONS if precision == "auto" else (precision,)
    found = [one for one in found if one[1].backend == backend and one[1].precision in wanted]
    if found:
        return sorted(found, key=lambda one: wanted.index(one[1].precision))
    if damaged:  # its backend and precision are unknown
        raise UserError(damaged[0])
    which = backend if precision == "auto" else f"{backend} {precision}"
    command = f"edgedistill build {bundle} --backend {backend} --precision {wanted[0]}"
    raise UserError(f"{engine or bundle}: has no engine for {which}; build one: {command}")
