"""How fast a bundle runs: latency of each stage when warm, and what a fresh process costs until its first result.

Nothing here imports more than inference needs, so it can be run on the device itself.
"""

import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np

from deploy.bundle.manifest import GOLDEN, InputSpec
from deploy.errors import UserError
from deploy.latency import cold_process

HEIGHT = 0.7
"""Meters of a camera above a table."""
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
    """What a measurement needs of a model's result."""

    @property
    def timings(self) -> StageTimings: ...


TimedModel = Callable[[np.ndarray], Timed]


class Summary(msgspec.Struct, frozen=True):
    """Distribution of a duration over the runs, in milliseconds."""

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
    """From the image as read to the finished labels."""
    preprocess: Summary
    engine: Summary
    postprocess: Summary
    images_per_second: float
    """Runs over the wall-clock time they took, one after another."""


class ColdStart(msgspec.Struct, frozen=True):
    """Cost of a fresh process that does nothing but inference, started on warm disk caches."""

    first_result_s: float
    """From the start of the process to its first result: interpreter, imports, loading and one inference."""
    import_s: float
    """Of that, importing `deploy.tasks.segmentation.model`, with numpy and Pillow."""
    load_s: float
    """Of that, `deploy.load`: checksums, the inference library, the engine."""
    peak_rss_bytes: int
    """Most memory that the process ever held, after `inferences` inferences."""
    inferences: int


def measure(model: TimedModel, image: np.ndarray, runs: int = 200, warmup: int = 20) -> LatencyStats:
    """Latency of `runs` inferences on one image, after `warmup` that do not count."""
    return measure_interleaved([(model, image)], runs, warmup)[0]


def measure_interleaved(
    models: Sequence[tuple[TimedModel, np.ndarray]], runs: int = 200, warmup: int = 20, block: int = 10
) -> list[LatencyStats]:
    """`measure` for several models, each on its own image, taking turns of `block` runs.

    So whatever changes meanwhile (clock frequency, temperature, other load) meets all of them alike.
    """
    if runs < 1 or warmup < 0:
        raise UserError(f"{runs} runs after {warmup} to warm up: give at least 1 run and 0 to warm up")
    rows: list[list[tuple[float, ...]]] = [[] for _ in models]
    seconds = [0.0] * len(models)
    for model, image in models:
        _run(model, image, warmup)
    for first in range(0, runs, block):
        for index, (model, image) in enumerate(models):
            # Not counted: it brings this model's data back into the caches and lets the others' threads go to sleep.
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
    """Run a bundle in a fresh process and time it from outside, from before its start to its first result.

    `backend`, `threads` and `precision` as for `deploy.load`. `UserError` with the last line of the process's errors
    if it fails.
    """
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryFile("w+") as errors:
        np.save(Path(scratch) / "image.npy", image)
        settings = [backend, precision, str(threads or 0), str(inferences)]
        arguments = [os.fspath(folder), f"{scratch}/image.npy", *settings]
        start = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, "-P", cold_process.__file__, *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=os.environ | {"PYTHONPATH": _search_path()},
        ) as process:
            assert process.stdout is not None
            while process.stdout.readline() not in (cold_process.FIRST_RESULT + "\n", ""):
                pass  # an inference library may print, too
            first_result = time.perf_counter() - start
            output = process.stdout.read()
        if process.returncode:
            errors.seek(0)
            reason = (errors.read().strip().splitlines() or [f"exit code {process.returncode}"])[-1]
            raise UserError(f"{folder}: a fresh process could not run it ({reason})")
    return ColdStart(first_result_s=first_result, **msgspec.json.decode(output.splitlines()[-1]))


def sample_image(folder: str | Path, spec: InputSpec) -> tuple[np.ndarray, str]:
    """An image H×W×C for the bundle, and its origin: "golden", the bundle's own example, or "random" without one."""
    path = Path(folder) / GOLDEN
    if not path.is_file():
        return _random_image(spec), "random"
    try:
        with np.load(path) as arrays:
            image = arrays["inputs"][0]
    except (OSError, ValueError, KeyError, IndexError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: holds no readable `inputs` ({error}); export the bundle again") from error
    image = np.array(image if spec.layout == "NHWC" else np.moveaxis(image, 0, -1), order="C")
    if spec.depth is not None:  # there it is relative to its mean; from a camera it is above 0
        image[..., spec.depth] += HEIGHT
    return image, "golden"


def _random_image(spec: InputSpec) -> np.ndarray:
    """Noise with the mean and standard deviation of the training images."""
    noise = np.random.default_rng(0).standard_normal(
        (spec.height, spec.width, len(spec.channels)), np.float32
    )
    image = noise * np.asarray(spec.std, np.float32) + np.asarray(spec.mean, np.float32)
    if spec.depth is not None:
        image[..., spec.depth] += HEIGHT
    return image.clip(0, 255).astype(np.uint8) if spec.dtype == "uint8" else image


def _run(model: TimedModel, image: np.ndarray, runs: int) -> list[tuple[float, ...]]:
    """Milliseconds of each run, in the order of STAGES."""
    timings = [model(image).timings for _ in range(runs)]
    return [(t.total_ms, t.preprocess_ms, t.engine_ms, t.postprocess_ms) for t in timings]


def _stats(milliseconds: np.ndarray, seconds: float) -> LatencyStats:
    """Statistics of runs × STAGES milliseconds that took `seconds` altogether."""
    summaries = {stage: _summary(column) for stage, column in zip(STAGES, milliseconds.T, strict=True)}
    return LatencyStats(runs=len(milliseconds), images_per_second=len(milliseconds) / seconds, **summaries)


def _summary(values: np.ndarray) -> Summary:
    p50, p90, p99 = np.percentile(values, [50, 90, 99]).tolist()
    return Summary(p50, p90, p99, float(values.min()), float(values.mean()), float(values.std()))


def _search_path() -> str:
    """PYTHONPATH that finds this very package, wherever the caller imported it from."""
    here = os.fspath(Path(__file__).resolve().parents[2])
    return os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
