"""Measure how fast a bundle runs: latency of each stage when warm, and start-up cost of a fresh process.

This module imports no more than inference does, so it can run on the device itself.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np

from deploy.bundle.golden_file import read_golden
from deploy.bundle.manifest import GOLDEN, InputSpec
from deploy.errors import UserError
from deploy.fresh_python import python_command
from deploy.heartbeat import counted
from deploy.latency import cold_process

HEIGHT = 0.7
"""Typical height of a camera above a table, in meters."""
STAGES = ("total", "preprocess", "engine", "postprocess")


class StageTimings(Protocol):
    """The timings of one inference in milliseconds (`deploy.inference.call.Timings`)."""

    @property
    def total_ms(self) -> float: ...
    @property
    def preprocess_ms(self) -> float: ...
    @property
    def engine_ms(self) -> float: ...
    @property
    def postprocess_ms(self) -> float: ...


class Timed(Protocol):
    """The part of a model's result that a measurement needs."""

    @property
    def timings(self) -> StageTimings: ...


TimedModel = Callable[[np.ndarray], Timed]


class Summary(msgspec.Struct, frozen=True):
    """Statistics of a duration over the runs, in milliseconds."""

    p50: float
    p90: float
    p99: float
    min: float
    mean: float
    std: float


class LatencyStats(msgspec.Struct, frozen=True):
    """Latency of a warm model, one image at a time."""

    runs: int
    total: Summary
    """From the image as read to the final labels."""
    preprocess: Summary
    engine: Summary
    postprocess: Summary
    images_per_second: float
    """Number of runs, one after another, divided by their wall-clock time."""


class ColdStart(msgspec.Struct, frozen=True):
    """Cost of a fresh process that only runs inference, started with warm disk caches."""

    first_result_s: float
    """From the start of the process to its first result: interpreter, imports, loading and one inference."""
    import_s: float
    """Of that, the imports of `deploy.loading`, numpy and Pillow."""
    load_s: float
    """Of that, `deploy.load`: checksums, the inference library, the engine."""
    peak_rss_bytes: int
    """Peak memory of the process after `inferences` inferences."""
    inferences: int


def measure(model: TimedModel, image: np.ndarray, runs: int = 200, warmup: int = 20) -> LatencyStats:
    """Latency of `runs` inferences on one image, after `warmup` inferences that are not counted."""
    return measure_interleaved([(model, image)], runs, warmup)[0]


def measure_interleaved(
    models: Sequence[tuple[TimedModel, np.ndarray]], runs: int = 200, warmup: int = 20, block: int = 10
) -> list[LatencyStats]:
    """Measure several models, each on its own image, in turns of `block` runs.

    Changes of clock frequency, temperature or other load thus affect all models alike.

    Args:
        models: each model with its image.
        runs: measured inferences of each model, at least 1.
        warmup: inferences of each model before that, not counted.
        block: inferences of a model before the next model's turn.

    Raises:
        UserError: `runs` or `warmup` out of range.
    """
    if runs < 1 or warmup < 0:
        raise UserError(
            f"{runs} runs after {warmup} to warm up: give at least 1 run, and 0 or more to warm up"
        )
    rows: list[list[tuple[float, ...]]] = [[] for _ in models]
    seconds = [0.0] * len(models)
    for model, image in models:
        _run(model, image, warmup)
    for first in counted(range(0, runs, block)):
        for index, (model, image) in enumerate(models):
            # Not counted: reloads this model's data into the caches and lets the other models' threads go to sleep.
            _run(model, image, 1)
            start = time.perf_counter()
            rows[index] += _run(model, image, min(block, runs - first))
            seconds[index] += time.perf_counter() - start
    return [_stats(np.array(times), wall) for times, wall in zip(rows, seconds, strict=True)]


def cold_start(
    folder: str | Path,
    image: np.ndarray,
    backend: str = "auto",
    threads: int | None = None,
    inferences: int = 10,
    precision: str = "auto",
) -> ColdStart:
    """Run a bundle in a fresh process, and time it from its start to its first result.

    Args:
        folder: the bundle.
        image: H×W×C.
        backend: as for `deploy.load`.
        threads: as for `deploy.load`.
        inferences: how many the process runs before its peak memory is read.
        precision: as for `deploy.load`.

    Raises:
        UserError: the process failed; the message has the last line of its errors.
    """
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        np.save(Path(scratch) / "image.npy", image)
        settings = [backend, precision, str(threads or 0), str(inferences)]
        arguments = [os.fspath(folder), f"{scratch}/image.npy", *settings]
        start = time.perf_counter()
        with subprocess.Popen(
            python_command("from deploy.latency.cold_process import main; main()", arguments),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=os.environ | {"PYTHONPATH": _search_path()},
        ) as process:
            assert process.stdout is not None
            while process.stdout.readline() not in (cold_process.FIRST_RESULT + "\n", ""):
                pass  # inference libraries may print lines of their own
            first_result = time.perf_counter() - start
            output = process.stdout.read()
        if process.returncode:
            errors.seek(0)
            reason = (errors.read().strip().splitlines() or [f"exit code {process.returncode}"])[-1]
            raise UserError(f"{folder}: a fresh process could not run it ({reason})")
    return ColdStart(first_result_s=first_result, **msgspec.json.decode(output.splitlines()[-1]))


def sample_image(folder: str | Path, spec: InputSpec) -> tuple[np.ndarray, str]:
    """An image for measurements on a bundle.

    Returns:
        The image H×W×C, and "golden" if it is the bundle's own example, else "random".

    Raises:
        UserError: the example cannot be read.
    """
    if not (Path(folder) / GOLDEN).is_file():
        return _random_image(spec), "random"
    image = read_golden(folder)["inputs"][0]
    image = np.array(image if spec.layout == "NHWC" else np.moveaxis(image, 0, -1), order="C")
    if spec.depth is not None:  # relative to its mean in the bundle; from a camera it is above 0
        image[..., spec.depth] += HEIGHT
    return image, "golden"


def _random_image(spec: InputSpec) -> np.ndarray:
    """Random image with the mean and standard deviation of the training images."""
    noise = np.random.default_rng(0).standard_normal(
        (spec.height, spec.width, len(spec.channels)), np.float32
    )
    image = noise * np.asarray(spec.std, np.float32) + np.asarray(spec.mean, np.float32)
    if limits := spec.scale.limits:
        image = spec.scale.raw(image.clip(*np.array(limits, np.float32).T), np)
    if spec.depth is not None:
        image[..., spec.depth] += HEIGHT
    return image.clip(0, 255).astype(np.uint8) if spec.dtype == "uint8" else image


def _run(model: TimedModel, image: np.ndarray, runs: int) -> list[tuple[float, ...]]:
    """Milliseconds of each run, with the stages in the order of STAGES."""
    timings = [model(image).timings for _ in range(runs)]
    return [(t.total_ms, t.preprocess_ms, t.engine_ms, t.postprocess_ms) for t in timings]


def _stats(milliseconds: np.ndarray, seconds: float) -> LatencyStats:
    """Statistics of milliseconds, runs × STAGES, of runs that took `seconds` in total."""
    summaries = {stage: _summary(column) for stage, column in zip(STAGES, milliseconds.T, strict=True)}
    return LatencyStats(runs=len(milliseconds), images_per_second=len(milliseconds) / seconds, **summaries)


def _summary(values: np.ndarray) -> Summary:
    p50, p90, p99 = np.percentile(values, [50, 90, 99]).tolist()
    return Summary(p50, p90, p99, float(values.min()), float(values.mean()), float(values.std()))


def _search_path() -> str:
    """PYTHONPATH that makes the process import this same copy of the package."""
    here = os.fspath(Path(__file__).resolve().parents[2])
    return os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
