"""What `benchmarks/gpu.py` measures of one TensorRT engine.

Start-up, memory, golden labels, threads, latency, throughput, each with the energy that it takes, and layers.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import msgspec
import numpy as np

from deploy.backends.gpu_options import GpuOptions
from deploy.backends.tensorrt_gpu.builder import BuildOptions, build_engine
from deploy.backends.tensorrt_gpu.cuda_interface import Cuda
from deploy.backends.tensorrt_gpu.engine import open_trt
from deploy.backends.tensorrt_gpu.measuring import LayerTime
from deploy.backends.tensorrt_gpu.trt_engine import TrtEngine
from deploy.bundle.engine_files import Sidecar
from deploy.bundle.golden_file import read_golden
from deploy.errors import UserError
from deploy.measure.energy import Energy, Meter


class Timing(msgspec.Struct, frozen=True):
    """GPU time of a batch by CUDA events, in milliseconds."""

    batch: int
    copies: bool
    """Includes copying the input to the GPU and the outputs back."""
    cuda_graph: bool
    p50: float
    p99: float
    energy: Energy
    """Of all timed runs together, with pauses between them: one run at a time."""
    joules_per_frame: float | None


class Throughput(msgspec.Struct, frozen=True):
    """Images per second with work queued ahead on several streams, including the copies."""

    batch: int
    streams: int
    cuda_graph: bool
    images_per_second: float
    energy: Energy
    joules_per_frame: float | None


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
    throughput: tuple[Throughput, ...]
    no_graph: str
    """Why there are no timings with a CUDA graph; empty if there are."""
    no_throughput: str
    """Why not all numbers of streams were measured; empty if they were."""
    profile: tuple[LayerTime, ...]
    """The time of each layer, the slowest first; empty without `--profile`."""
    inspector: dict[str, Any]
    """TensorRT's own description of the layers."""


@dataclass(frozen=True)
class Measured:
    """Figures of an engine that is open."""

    timings: tuple[Timing, ...] = ()
    throughput: tuple[Throughput, ...] = ()
    problem: str = ""
    """Why some are missing; "" if none is."""


def measure_engine(
    backend: str, precision: str, batch: int, cuda: Cuda, meter: Meter, options: argparse.Namespace
) -> Row:
    """Build an engine for one batch size into the bundle, and measure it.

    Kernels are tuned for one batch size: an engine for a range that is tuned for single images would understate what
    the GPU does with larger batches.

    Args:
        backend: `tensorrt` or `tensorrt-rtx`.
        precision: `fp32`, `fp16` or `int8`.
        batch: the batch size.
        cuda: the GPU.
        meter: measures its power.
        options: the script's options.

    Raises:
        UserError: the engine cannot be built or opened.
    """
    bundle = options.bundle
    wanted: Any = {"backend": backend, "precision": precision, "batch": (batch, batch, batch)}
    built = build_engine(bundle, BuildOptions(**wanted, device=options.device), progress=False)
    gpu = GpuOptions(device=options.device, eager=True, max_contexts=max(*options.streams, 4))
    opened = partial(open_trt, bundle, backend, engine=built.path, provider=options.provider)
    golden = read_golden(bundle)
    images = golden["inputs"]
    free = _free_bytes(cuda)
    engine, load_s = _load(partial(opened, options=gpu), images)
    with closing(engine):
        gpu_bytes = free - _free_bytes(cuda)
        golden_agreement, threads_agree = _answers(engine, images, golden["labels"])
        plain = _measure(engine, images, False, meter, options)
        layers = engine.profile(_batch(engine, images)) if options.profile else []
        inspector = engine.inspect()
    fast = _measure_graph(partial(opened, options=replace(gpu, cuda_graph=True)), images, meter, options)
    again, reload_s = _load(partial(opened, options=gpu), images)
    again.close()
    return Row(
        engine=engine.name,
        file=str(built.path),
        sidecar=built.sidecar,
        load_s=load_s,
        reload_s=reload_s,
        gpu_bytes=gpu_bytes,
        golden_agreement=golden_agreement,
        threads_agree=threads_agree,
        profile=tuple(sorted(layers, key=lambda layer: -layer.ms)),
        inspector=inspector,
        **_figures(plain, fast),
    )


def _figures(plain: Measured, fast: Measured) -> dict[str, Any]:
    """Fields of a row: figures without and with a CUDA graph."""
    return {
        "timings": (*plain.timings, *fast.timings),
        "throughput": (*plain.throughput, *fast.throughput),
        "no_graph": "" if fast.timings else fast.problem,
        "no_throughput": plain.problem or (fast.problem if fast.timings else ""),
    }


def _load(opened: Callable[[], TrtEngine], images: np.ndarray) -> tuple[TrtEngine, float]:
    """The engine, and the seconds until its first result."""
    start = time.perf_counter()
    engine = opened()
    engine.run(images[:1])
    return engine, time.perf_counter() - start


def _answers(engine: TrtEngine, images: np.ndarray, expected: np.ndarray) -> tuple[float, bool]:
    """The share of expected labels, and whether several threads at once get the same ones as one alone."""
    labels = engine.run(images)["labels"]
    with ThreadPoolExecutor(4) as pool:
        others = [outputs["labels"] for outputs in pool.map(engine.run, [images] * 16)]
    return float(np.mean(labels == expected)), all(np.array_equal(labels, other) for other in others)


def _batch(engine: TrtEngine, images: np.ndarray) -> np.ndarray:
    """Images in the number that the engine takes."""
    return np.resize(images, (engine.largest_batch, *images.shape[1:]))


def _measure(
    engine: TrtEngine, images: np.ndarray, cuda_graph: bool, meter: Meter, options: argparse.Namespace
) -> Measured:
    """Latency and throughput; where memory does not suffice for as many streams, that of fewer."""
    batch = _batch(engine, images)
    timings = tuple(_timings(engine, batch, cuda_graph, meter, options))
    found: list[Throughput] = []
    try:
        for streams in options.streams:
            one = _throughput(engine, batch, streams, cuda_graph, meter, options)
            found.append(one)  # stays if the next one fails
    except UserError as error:
        return Measured(timings, tuple(found), str(error))
    return Measured(timings, tuple(found))


def _measure_graph(
    opened: Callable[[], TrtEngine], images: np.ndarray, meter: Meter, options: argparse.Namespace
) -> Measured:
    """The same with a CUDA graph, or why there is none."""
    try:
        with closing(opened()) as engine:
            return _measure(engine, images, True, meter, options)
    except UserError as error:
        return Measured(problem=str(error))


def _timings(
    engine: TrtEngine, batch: np.ndarray, cuda_graph: bool, meter: Meter, options: argparse.Namespace
) -> Iterator[Timing]:
    """GPU times of a batch, without and with the copies."""
    for copies in (False, True):
        engine.time(batch, options.warmup, copies=copies)
        times, energy = meter.measure(partial(engine.time, batch, options.runs, copies=copies))
        p50, p99 = np.percentile(times, [50, 99]).tolist()
        joules = energy.joules_per(options.runs * len(batch))
        yield Timing(len(batch), copies, cuda_graph, p50, p99, energy, joules)


def _throughput(
    engine: TrtEngine,
    batch: np.ndarray,
    streams: int,
    cuda_graph: bool,
    meter: Meter,
    options: argparse.Namespace,
) -> Throughput:
    """Images per second with this number of streams, over `--seconds` and at least `--runs` runs."""
    rate = engine.throughput(
        batch, max(options.warmup, 2 * streams), streams=streams
    )  # warms up, and estimates
    runs = max(options.runs, math.ceil(options.seconds * rate / len(batch)))
    rate, energy = meter.measure(partial(engine.throughput, batch, runs, streams=streams))
    return Throughput(len(batch), streams, cuda_graph, rate, energy, energy.joules_per(runs * len(batch)))


def _free_bytes(cuda: Cuda) -> int:
    """Free bytes of the GPU's memory."""
    with cuda.current():
        return cuda.memory()[0]
