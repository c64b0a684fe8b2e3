"""Time calls in turns, so that other load, temperature and the clock's frequency affect all of them alike."""

from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import TypeVar

import numpy as np

from deploy.backends.auto import installed
from deploy.backends.onnxruntime_cpu import OrtEngine
from deploy.backends.openvino_cpu import OvEngine
from deploy.table import int8_notes_by_backend

WARMUP = 3
ENGINES = {"onnxruntime": OrtEngine, "openvino": OvEngine}

K = TypeVar("K")


def in_turns(
    calls: Mapping[K, Callable[[], object]], turns: int, block: int = 1, seconds: float = 0.0
) -> dict[K, list[float]]:
    """Milliseconds of each call of each function.

    The first call of a turn is not counted: it reloads the data of its model into the caches, and the threads of the
    other models go to sleep.

    Args:
        calls: what to time.
        turns: how often each has its turn.
        block: least number of calls in a turn.
        seconds: least duration of a turn.
    """
    for call in calls.values():
        for _ in range(WARMUP):
            call()
    times: dict[K, list[float]] = {key: [] for key in calls}
    for _ in range(turns):
        for key, call in calls.items():
            call()
            end, count = perf_counter() + seconds, 0
            while count < block or perf_counter() < end:
                began = perf_counter()
                call()
                times[key].append(1000 * (perf_counter() - began))
                count += 1
    return times


def int8_lines(milliseconds: Mapping[str, Mapping[str, float]]) -> list[str]:
    """`int8_notes_by_backend` of milliseconds by backend and precision, such as "openvino int8", by network."""
    forms = ((name, *form.split(), ms) for name, own in milliseconds.items() for form, ms in own.items())
    return int8_notes_by_backend({(name, backend, kind): ms for name, backend, kind, ms in forms})


def calls_of(
    models: Mapping[str, bytes | Path], image: np.ndarray
) -> dict[tuple[str, str], Callable[[], object]]:
    """Calls of ONNX models in the engines of all CPU backends, by backend and precision.

    Args:
        models: by precision.
        image: what they run on, as the network takes it, without the axis of images.
    """
    calls: dict[tuple[str, str], Callable[[], object]] = {}
    for precision, model in models.items():
        for backend in installed():
            engine = ENGINES[backend](model)
            calls[backend, precision] = lambda engine=engine: engine.run(image[None])
    return calls
