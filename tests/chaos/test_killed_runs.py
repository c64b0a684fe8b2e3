"""A run that is killed at random moments ends, after `--resume`, with the weights and report of an uninterrupted one.

`EDGEDISTILL_KILLS` is the number of kills: two by default, fifty in the long form.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import onnx.numpy_helper
import pytest

from deploy.files.atomic import sha256_file
from distill.training.checkpoint import digest, load_checkpoint
from tests.distill.tiny import RUN

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("EDGEDISTILL_KILLS", "2"))
PER_RUN = 4
"""Kills of one run before it may end."""
MEASURED = {"train_seconds", "ms_per_image", "ms", "latency", "images_per_s", "bundle", "created"}
"""Fields of a report that differ from run to run."""


def start(out: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "distill/run.py", *RUN, f"--out={out}", "--resume"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def finish(out: Path) -> None:
    process = start(out)
    _, errors = process.communicate()
    assert process.returncode == 0, errors


def without_times(value: object, folder: Path) -> object:
    """A report without what is measured in time, and without the run's folder."""
    if isinstance(value, dict):
        return {key: without_times(one, folder) for key, one in value.items() if key not in MEASURED}
    if isinstance(value, list):
        return [without_times(one, folder) for one in value]
    return value.replace(str(folder), "OUT") if isinstance(value, str) else value


def network(path: Path) -> object:
    """Operators and values of an exported network; how intermediate values are numbered varies."""
    graph = onnx.load(path).graph
    return [node.op_type for node in graph.node], sorted(
        (str(one.data_type), str(one.dims), onnx.numpy_helper.to_array(one).tobytes())
        for one in graph.initializer
    )


def weights(path: Path) -> object:
    """Tensors and metadata of a checkpoint; the order in a file's header varies."""
    tensors, meta = load_checkpoint(path)
    return digest(tensors), meta


def result(out: Path) -> dict[str, object]:
    """What a run has written: weights, exported networks, images for the device, and the report without times."""
    readers = {"*/best.safetensors": weights, "*.bundle/*.onnx": network, "data/**/*.png": sha256_file}
    found: dict[str, object] = {
        str(path.relative_to(out)): read(path) for kind, read in readers.items() for path in out.glob(kind)
    }
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return found | {"report": without_times(report, out)}


@pytest.mark.slow
def test_killed_runs_end_as_an_uninterrupted_one(tmp_path):
    began = time.monotonic()
    finish(tmp_path / "straight")
    whole, expected = time.monotonic() - began, result(tmp_path / "straight")
    moments = random.Random(16)
    for first in range(0, KILLS, PER_RUN):
        out = tmp_path / f"killed-{first}"
        for _ in range(min(PER_RUN, KILLS - first)):
            process = start(out)
            try:
                process.communicate(timeout=whole * moments.uniform(0.1, 1.0))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.communicate()
            assert process.returncode in (0, -signal.SIGKILL)
        finish(out)
        found = result(out)
        assert [name for name in expected | found if found.get(name) != expected.get(name)] == []
        assert not list(out.rglob(".*.tmp"))
