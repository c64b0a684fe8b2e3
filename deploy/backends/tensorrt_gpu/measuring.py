"""How fast an engine is on the GPU: latency by events, throughput with work queued ahead, the time of each layer."""

import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from deploy.backends.tensorrt_gpu.cuda_interface import Cuda
from deploy.backends.tensorrt_gpu.execution_lane import Lane


@dataclass(frozen=True)
class LayerTime:
    """The time that a layer of an engine takes."""

    name: str
    """TensorRT's name of the fused layer, which has the names of the ONNX nodes in it."""
    ms: float
    """Median of the runs, milliseconds."""
    share: float
    """Of the sum over all layers, 0 to 1."""


def event_times(cuda: Cuda, lane: Lane, runs: int, copies: bool) -> np.ndarray:
    """Milliseconds of GPU time of each run of a filled lane, float64; one run at a time."""
    times = []
    with ExitStack() as owner:
        start, end = cuda.event(owner), cuda.event(owner)
        for _ in range(runs):
            cuda.record(start, lane.stream)
            lane.queue(copies)
            cuda.record(end, lane.stream)
            cuda.sync(lane.stream)
            times.append(cuda.elapsed(start, end))
    return np.array(times)


def seconds_ahead(cuda: Cuda, lanes: Sequence[Lane], runs: int, ahead: int, copies: bool) -> float:
    """Wall-clock seconds of runs of filled lanes, in turns, with `ahead` runs queued on each before one is waited for.

    So the GPU never waits for the CPU, and one stream copies while another computes, as in `trtexec --infStreams`.
    """
    with ExitStack() as owner:
        queued: list[deque[int]] = [deque() for _ in lanes]
        events = [[cuda.event(owner) for _ in range(ahead)] for _ in lanes]
        start = time.perf_counter()
        for number in range(runs):
            index, turn = number % len(lanes), number // len(lanes)
            if len(queued[index]) == ahead:
                cuda.wait(queued[index].popleft())
            event = events[index][turn % ahead]
            lanes[index].queue(copies)
            cuda.record(event, lanes[index].stream)
            queued[index].append(event)
        for lane in lanes:
            cuda.sync(lane.stream)
        return time.perf_counter() - start


def layer_times(library: Any, cuda: Cuda, lane: Lane, runs: int) -> list[LayerTime]:
    """The time of each layer of a filled lane, in the order of execution.

    A profiler slows the engine down, so only the shares matter. The lane keeps the profiler: close it afterwards.
    """
    seen: dict[str, list[float]] = {}

    class Profiler(library.IProfiler):
        def __init__(self) -> None:
            library.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            seen.setdefault(layer_name, []).append(float(ms))

    profiler = Profiler()  # the name keeps it alive: TensorRT holds no reference
    lane.profile(profiler)
    for _ in range(runs):
        lane.queue(copies=False)
        cuda.sync(lane.stream)
    medians = {name: float(np.median(times)) for name, times in seen.items()}
    total = sum(medians.values()) or 1.0
    return [LayerTime(name, ms, ms / total) for name, ms in medians.items()]
