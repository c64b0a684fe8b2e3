"""What layouts of `benchmarks/design.py` cost at inference, and in a training step."""

import json
import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.design_layouts import Layout
from benchmarks.networks import Candidate, exported, noise_image, settled
from benchmarks.stepping import Stepper
from benchmarks.turns import calls_of, in_turns
from deploy.backends.tensorrt_gpu.compile import compile_network
from deploy.backends.tensorrt_gpu.log import listen
from deploy.backends.tensorrt_gpu.options import BuildOptions
from deploy.backends.tensorrt_gpu.packages import import_tensorrt
from deploy.backends.tensorrt_gpu.progress import Progress
from deploy.bundle.manifest import InputSpec
from deploy.files.atomic import atomic_write, write_json
from deploy.quantize.qdq import cpu_form

ROUNDS = 2
"""Times that each network is loaded and timed anew, because its place in memory changes its speed."""
FORMS = ("fp32", "int8")
BLOCK = 5
"""Inferences of a network in one turn."""
TARGET = "sm86"
"""Compute capability that TensorRT-RTX compiles for; no GPU is needed."""
WARM, TURNS = 1, 8
"""Steps of each layout: warm-up steps, which are not counted, and measured steps."""


def latencies(
    layouts: Sequence[Layout], spec: InputSpec, classes: int, runs: int, folder: Path
) -> dict[str, dict[str, Any]]:
    """Parameters, operations, milliseconds and fused layers of untrained networks, by the names of the layouts.

    Args:
        layouts: what to measure, in turns.
        spec: the input.
        classes: how many they tell apart.
        runs: measured inferences of each network, backend and precision in each of `ROUNDS` rounds.
        folder: the exported networks are kept here, so that a second call has nothing to do but time them.

    Returns:
        `parameters`, `macs`, `fused_layers` (None without TensorRT-RTX), and `ms`: by backend and precision, the median
        of the rounds' medians.
    """
    found = {layout.name: _exported(layout, spec, classes, folder) for layout in layouts}
    files = {
        name: {form: folder / f"{one['slug']}-{form}.onnx" for form in FORMS} for name, one in found.items()
    }
    rounds = [_medians(files, noise_image(spec, 0), runs) for _ in range(ROUNDS)]
    for name, one in found.items():
        del one["slug"]
        one["ms"] = {
            form: statistics.median(times[name, form] for times in rounds)
            for own, form in rounds[0]
            if own == name
        }
    return found


def _medians(
    files: Mapping[str, Mapping[str, Path]], image: np.ndarray, runs: int
) -> dict[tuple[str, str], float]:
    """Median milliseconds by network and, in one text, backend and precision, all in turns."""
    calls = {
        (name, " ".join(form)): call
        for name, models in files.items()
        for form, call in calls_of(models, image).items()
    }
    times = in_turns(calls, -(-runs // BLOCK), BLOCK)
    return {key: statistics.median(own) for key, own in times.items()}


def _exported(layout: Layout, spec: InputSpec, classes: int, folder: Path) -> dict[str, Any]:
    """Write a network's ONNX files and what is known of it without timing, unless that has been done."""
    path = folder / f"{layout.slug}.json"
    if not path.exists():
        candidate = Candidate(layout.name, settled(layout.network(len(spec.channels), classes)))
        model, int8 = exported(candidate, spec)
        for form, content in zip(FORMS, (model, cpu_form(int8)), strict=True):
            with atomic_write(folder / f"{layout.slug}-{form}.onnx") as file:
                file.write(content)
        about = {"parameters": candidate.parameters, "macs": candidate.macs(spec.height)}
        write_json(path, {"slug": layout.slug, **about, "fused_layers": fused_layers(int8)})
    return json.loads(path.read_text(encoding="utf-8"))


def fused_layers(int8: bytes) -> int | None:
    """Layers of a network in INT8 (the form for TensorRT) as TensorRT-RTX compiles it; None if it is not installed."""
    if find_spec("tensorrt_rtx") is None:
        return None
    trt = import_tensorrt("tensorrt-rtx")
    options = BuildOptions("tensorrt-rtx", targets=(TARGET,))
    stop = threading.Event()
    with listen(trt) as messages:
        built = compile_network(
            trt, int8, Path("model.onnx"), options, options.targets, messages, Progress(), stop
        )
    return len(built.layers.layers) if built.layers else None


def step_seconds(steppers: dict[str, Stepper]) -> dict[str, float]:
    """CPU seconds of a training step of each, measured in turns: the fastest of `TURNS`, the least disturbed one."""
    turns = [{name: _cpu_seconds(one) for name, one in steppers.items()} for _ in range(WARM + TURNS)][WARM:]
    return {name: min(turn[name] for turn in turns) for name in steppers}


def _cpu_seconds(stepper: Stepper) -> float:
    began = time.process_time()
    stepper.step()
    return time.process_time() - began
