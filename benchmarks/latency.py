"""Latency side by side: each stage when warm, throughput, peak memory and cold start of a fresh process.

    python benchmarks/latency.py runs/quick/student.bundle runs/camvid/student.bundle --runs 200 --json latency.json
    python benchmarks/latency.py BUNDLE --backends onnxruntime openvino --precisions fp32 int8

Measures every bundle on every available backend in every available precision, one image at a time, on this machine,
through `deploy.load`, as an application on the device would use it.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: imports start at the repository, not in this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from deploy.backends.auto import installed, tensorrt_here
from deploy.backends.engine import CPU, CPU_MODELS, PRECISIONS, TENSORRT, engine_files, model_file
from deploy.bundle.bundle_files import read_manifest
from deploy.errors import UserError, exit_with_one_line
from deploy.files.atomic import write_json
from deploy.inference.image_files import read_input
from deploy.latency.latency import ColdStart, LatencyStats, cold_start, measure_interleaved, sample_image
from deploy.loading import load
from deploy.measure import machine
from deploy.table import format_table, int8_notes_by_backend

CPU_PRECISIONS = ("fp32", "int8")
"""Measured on CPUs by default; fp16 is left out because CPUs compute it in fp32."""


class Subject(NamedTuple):
    """One bundle on one backend in one precision, and the image to measure with."""

    bundle: Path
    backend: str
    precision: str
    image: np.ndarray
    image_source: str
    """"golden" (the bundle's own example), "random", or a file."""


class Row(msgspec.Struct, frozen=True):
    """One subject's figures, as written to JSON."""

    bundle: str
    name: str
    backend: str
    precision: str
    input: str
    """Network input, height×width×channels and dtype."""
    image: tuple[int, ...]
    """Shape of the measured image."""
    image_source: str
    model_file: str
    """The file that was opened."""
    model_bytes: int
    """Its size."""
    latency: LatencyStats
    speedup: float
    """Median latency of the first row of the same bundle and backend, divided by this row's."""
    cold_start: ColdStart


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the bundles named on the command line, print a table, write JSON."""
    options = _parse(arguments)
    subjects = [subject for folder in options.bundles for subject in _subjects(folder, options)]
    # Fresh processes first: later they would compete with this process's engines for memory and cores.
    cold = [
        cold_start(one.bundle, one.image, one.backend, options.threads, precision=one.precision)
        for one in subjects
    ]
    models = [load(one.bundle, one.backend, options.threads, precision=one.precision) for one in subjects]
    pairs = [(model, one.image) for model, one in zip(models, subjects, strict=True)]
    warm = measure_interleaved(pairs, options.runs, options.warmup)
    files = [model.engine.file or one.bundle for model, one in zip(models, subjects, strict=True)]
    first = _first_of_kind(subjects, warm)
    rows = [_row(*each) for each in zip(subjects, files, warm, first, cold, strict=True)]

    here = machine.describe()
    print(machine.summary(here))
    print(_settings(options, rows), end="\n\n")
    print(_table(rows))
    report = {"machine": here, "runs": options.runs, "warmup": options.warmup, "threads": options.threads}
    write_json(options.json, report | {"bundles": rows})
    print(f"\nwritten to {options.json}")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks/latency.py", description="Latency of bundles, side by side."
    )
    parser.add_argument(
        "bundles", nargs="+", type=Path, metavar="BUNDLE", help="folder written by the export"
    )
    parser.add_argument(
        "--backends", nargs="+", choices=(*CPU, *TENSORRT), help="default: those that can run on this machine"
    )
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=PRECISIONS[1:],
        help="default: those in the bundle; on a CPU only fp32 and int8",
    )
    parser.add_argument("--runs", type=int, default=200, help="measured inferences per row (default 200)")
    parser.add_argument("--warmup", type=int, default=20, help="warm-up inferences, not counted (default 20)")
    parser.add_argument("--threads", type=int, help="threads of the engine (default: its own choice)")
    parser.add_argument(
        "--image", type=Path, help="image to measure with (default: the bundle's golden input)"
    )
    parser.add_argument(
        "--json", type=Path, default=Path("runs/latency.json"), help="report (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    if options.threads is not None and options.threads < 1:
        raise UserError(f"--threads is {options.threads}: give a positive number or leave it out")
    if options.runs < 1 or options.warmup < 0:
        raise UserError(
            f"--runs {options.runs} --warmup {options.warmup}: give at least 1 run and 0 warm-up runs"
        )
    return options


def _subjects(folder: Path, options: argparse.Namespace) -> list[Subject]:
    """One bundle on all backends in all precisions.

    Raises:
        UserError: the bundle lacks a backend's file or a precision that was asked for.
    """
    spec = read_manifest(folder).input
    image, source = (
        (read_input(options.image, spec)[0], str(options.image))
        if options.image
        else sample_image(folder, spec)
    )
    found = _precisions(folder)
    pairs = [
        (backend, precision)
        for backend in options.backends or found
        for precision in options.precisions or found.get(backend, ["auto"])
    ]
    for pair in pairs:
        model_file(folder, *pair)  # raises UserError before anything is measured
    if not options.precisions and "int8" not in found[CPU[0]]:
        print(f"{folder}: has no INT8 model to measure; make it: edgedistill build {folder}")
    return [Subject(folder, *pair, image, source) for pair in pairs]


def _precisions(folder: Path) -> dict[str, list[str]]:
    """Precisions to measure, fp32 first, by backend: the installed ones and, with a GPU, TensorRT's."""
    files = read_manifest(folder).files
    here = [one for one in CPU_PRECISIONS if CPU_MODELS[one] in files]
    found = dict.fromkeys(installed(), here)
    for backend in tensorrt_here(folder, "auto"):
        found[backend] = sorted(engine_files(folder, backend), key=PRECISIONS.index, reverse=True)
    return found


def _first_of_kind(subjects: Sequence[Subject], warm: Sequence[LatencyStats]) -> list[LatencyStats]:
    """For each subject the latency of the first one with the same bundle and backend."""
    first: dict[tuple[Path, str], LatencyStats] = {}
    return [
        first.setdefault((one.bundle, one.backend), stats) for one, stats in zip(subjects, warm, strict=True)
    ]


def _row(subject: Subject, file: Path, latency: LatencyStats, first: LatencyStats, cold: ColdStart) -> Row:
    manifest = read_manifest(subject.bundle)
    spec = manifest.input
    return Row(
        bundle=str(subject.bundle),
        name=manifest.name,
        backend=subject.backend,
        precision=subject.precision,
        input=f"{spec.height}×{spec.width}×{len(spec.channels)} {spec.dtype}",
        image=subject.image.shape,
        image_source=subject.image_source,
        model_file=file.name,
        model_bytes=file.stat().st_size,
        latency=latency,
        speedup=first.total.p50 / latency.total.p50,
        cold_start=cold,
    )


def _settings(options: argparse.Namespace, rows: Sequence[Row]) -> str:
    """The settings of the measurement, in one line."""
    sources = ", ".join(dict.fromkeys(row.image_source for row in rows))
    threads = options.threads or "the engine's choice"
    return f"{options.runs} runs after {options.warmup} to warm up; threads: {threads}; image: {sources}; times in ms"


def _table(rows: Sequence[Row]) -> str:
    header = (
        "bundle",
        "backend",
        "precision",
        "input",
        "MB",
        "p50",
        "p90",
        "p99",
        "speed-up",
        "pre",
        "engine",
        "post",
        "img/s",
        "RSS MB",
        "cold s",
    )
    medians = {(str(row.bundle), row.backend, row.precision): row.latency.total.p50 for row in rows}
    return "\n".join([format_table(header, [_cells(row) for row in rows]), *int8_notes_by_backend(medians)])


def _cells(row: Row) -> tuple[str, ...]:
    stats, cold = row.latency, row.cold_start
    stages = (stats.preprocess, stats.engine, stats.postprocess)
    return (
        row.bundle,
        row.backend,
        row.precision,
        row.input,
        f"{row.model_bytes / 1e6:.2f}",
        *(f"{value:.2f}" for value in (stats.total.p50, stats.total.p90, stats.total.p99)),
        f"{row.speedup:.2f}×",
        *(f"{stage.p50:.2f}" for stage in stages),
        f"{stats.images_per_second:.1f}",
        f"{cold.peak_rss_bytes / 1e6:.0f}",
        f"{cold.first_result_s:.2f}",
    )


if __name__ == "__main__":
    exit_with_one_line(main)
