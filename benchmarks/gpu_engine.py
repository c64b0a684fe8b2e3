"""What `benchmarks/gpu.py` measures of one TensorRT engine: start-up, memory, golden labels, threads, GPU times."""

import argparse
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from deploy.backends.gpu_options import GpuOptions
from deploy.backends.tensorrt_gpu.builder import BuildOptions, build_engine
from deploy.backends.tensorrt_gpu.cuda_interface import Cuda
from deploy.backends.tensorrt_gpu.engine import open_trt
from deploy.backends.tensorrt_gpu.trt_engine import TrtEngine
from deploy.bundle.engine_files import Sidecar
from deploy.bundle.golden_file import read_golden
from deploy.errors import UserError


class Timing(msgspec.Struct, frozen=True):
    """GPU time of a batch by CUDA events, in milliseconds."""

    batch: int
    copies: bool
    """Includes copying the input to the GPU and the outputs back."""
    cuda_graph: bool
    p50: float
    p99: float


class Row(msgspec.Struct, frozen=True):
    """Figures of one engine."""

    engine: str
    file: str
    sidecar: Sidecar
    load_s: float
    """Seconds to open it for the first time and run one inference; the first engine also initializes the library."""
    reload_s: float
    """The same after it was closed."""
    gpu_bytes: int
    """GPU memory that it takes, with one execution context; the first engine's includes the library's own."""
    golden_agreement: float
    """Share of the golden pixels with the expected label."""
    threads_agree: bool
    """Several threads at once got the same labels as one thread alone."""
    timings: tuple[Timing, ...]
    no_graph: str
    """Why there are no timings with a CUDA graph; empty if there are."""
    inspector: dict[str, Any]
    """TensorRT's own description of the layers."""


def measure_engine(
    bundle: Path, backend: str, precision: str, batch: int, cuda: Cuda, options: argparse.Namespace
) -> Row:
    """Build an engine for one batch size into the bundle, and measure it.

    Kernels are tuned for one batch size: an engine for a range that is tuned for single images would understate what
    the GPU does with larger batches.

    Args:
        bundle: folder of the bundle.
        backend: `tensorrt` or `tensorrt-rtx`.
        precision: `fp32`, `fp16` or `int8`.
        batch: the batch size.
        cuda: the GPU.
        options: the script's options; `device`, `provider`, `runs` and `warmup` are used.

    Raises:
        UserError: the engine cannot be built or opened.
    """
    wanted: Any = {"backend": backend, "precision": precision, "batch": (batch, batch, batch)}
    built = build_engine(bundle, BuildOptions(**wanted, device=options.device), progress=False)
    gpu = GpuOptions(device=options.device, eager=True)
    opened = partial(open_trt, bundle, backend, engine=built.path, provider=options.provider, options=gpu)
    golden = read_golden(bundle)
    images = golden["inputs"]
    free = _free_bytes(cuda)
    engine, load_s = _load(opened, images)
    with closing(engine):
        gpu_bytes = free - _free_bytes(cuda)
        labels = engine.run(images)["labels"]
        with ThreadPoolExecutor(4) as pool:
            others = [outputs["labels"] for outputs in pool.map(engine.run, [images] * 16)]
        timings = list(_timings(engine, images, False, options))
        inspector = engine.inspect()
    fast, no_graph = _graph_timings(partial(opened, options=replace(gpu, cuda_graph=True)), images, options)
    again, reload_s = _load(opened, images)
    again.close()
    return Row(
        engine=engine.name,
        file=str(built.path),
        sidecar=built.sidecar,
        load_s=load_s,
        reload_s=reload_s,
        gpu_bytes=gpu_bytes,
        golden_agreement=float(np.mean(labels == golden["labels"])),
        threads_agree=all(np.array_equal(labels, other) for other in others),
        timings=(*timings, *fast),
        no_graph=no_graph,
        inspector=inspector,
    )


def _load(opened: Callable[[], TrtEngine], images: np.ndarray) -> tuple[TrtEngine, float]:
    """The engine, and the seconds until its first result."""
    start = time.perf_counter()
    engine = opened()
    engine.run(images[:1])
    return engine, time.perf_counter() - start


def _timings(
    engine: TrtEngine, images: np.ndarray, cuda_graph: bool, options: argparse.Namespace
) -> Iterator[Timing]:
    """GPU times of a batch, without and with the copies."""
    batch = np.resize(images, (engine.largest_batch, *images.shape[1:]))
    for copies in (False, True):
        engine.time(batch, options.warmup, copies=copies)
        p50, p99 = np.percentile(engine.time(batch, options.runs, copies=copies), [50, 99]).tolist()
        yield Timing(len(batch), copies, cuda_graph, p50, p99)


def _graph_timings(
    opened: Callable[[], TrtEngine], images: np.ndarray, options: argparse.Namespace
) -> tuple[list[Timing], str]:
    """GPU times with a CUDA graph, and why there are none; "" if there are."""
    try:
        with closing(opened()) as engine:
            return list(_timings(engine, images, True, options)), ""
    except UserError as error:
        return [], str(error)


def _free_bytes(cuda: Cuda) -> int:
    """Free bytes of the GPU's memory."""
    with cuda.current():
        return cuda.memory()[0]
