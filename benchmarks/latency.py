"""Latency of bundles side by side: each stage when warm, throughput, peak memory and cold start of a fresh process.

    python benchmarks/latency.py runs/quick/bundle runs/camvid/bundle --runs 200 --json latency.json

One image at a time, on this machine, through `deploy.load`: what an application on the device would see.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: imports start at the repository, not in this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
from collections.abc import Sequence

import msgspec
import numpy as np

from benchmarks import machine
from deploy.bundle import MODEL, read_manifest
from deploy.errors import UserError, exit_with_one_line
from deploy.files import write_json
from deploy.images import read_image
from deploy.latency import ColdStart, LatencyStats, cold_start, measure_interleaved, sample_image
from deploy.runtime import load
from deploy.table import format_table


class Row(msgspec.Struct, frozen=True):
    """One bundle's figures, as written to JSON."""

    bundle: str
    name: str
    input: str
    """Network input, height×width×channels and dtype."""
    image: tuple[int, ...]
    """Shape of the image measured with."""
    image_source: str
    """"golden" (the bundle's own example), "random", or a file."""
    model_bytes: int
    latency: LatencyStats
    cold_start: ColdStart


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the bundles named on the command line, print a table, write JSON."""
    options = _parse(arguments)
    inputs = [_image(folder, options.image) for folder in options.bundles]
    # Fresh processes first: later the sessions of this one would compete with them for memory and cores.
    cold = [
        cold_start(folder, image, "auto", options.threads)
        for folder, (image, _) in zip(options.bundles, inputs, strict=True)
    ]
    models = [load(folder, threads=options.threads) for folder in options.bundles]
    pairs = [(model, image) for model, (image, _) in zip(models, inputs, strict=True)]
    warm = measure_interleaved(pairs, options.runs, options.warmup)
    rows = [_row(*each) for each in zip(options.bundles, inputs, warm, cold, strict=True)]

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
    parser.add_argument("--runs", type=int, default=200, help="measured inferences per bundle (default 200)")
    parser.add_argument("--warmup", type=int, default=20, help="inferences before, not counted (default 20)")
    parser.add_argument("--threads", type=int, help="threads of the engine (default: its own choice)")
    parser.add_argument(
        "--image", type=Path, help="measure with this image (default: the bundle's golden input)"
    )
    parser.add_argument(
        "--json", type=Path, default=Path("runs/latency.json"), help="report (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    if options.threads is not None and options.threads < 1:
        raise UserError(f"--threads is {options.threads}: give a positive number or leave it out")
    if options.runs < 1 or options.warmup < 0:
        raise UserError(
            f"--runs {options.runs} --warmup {options.warmup}: give at least 1 run and 0 to warm up"
        )
    return options


def _image(folder: Path, file: Path | None) -> tuple[np.ndarray, str]:
    """The image for one bundle and where it is from."""
    spec = read_manifest(folder).input
    return (read_image(file), str(file)) if file else sample_image(folder, spec)


def _row(folder: Path, image: tuple[np.ndarray, str], latency: LatencyStats, cold: ColdStart) -> Row:
    manifest = read_manifest(folder)
    spec = manifest.input
    return Row(
        bundle=str(folder),
        name=manifest.name,
        input=f"{spec.height}×{spec.width}×{len(spec.channels)} {spec.dtype}",
        image=image[0].shape,
        image_source=image[1],
        model_bytes=manifest.files[MODEL].bytes,
        latency=latency,
        cold_start=cold,
    )


def _settings(options: argparse.Namespace, rows: Sequence[Row]) -> str:
    """What was measured, in one line."""
    sources = ", ".join(dict.fromkeys(row.image_source for row in rows))
    threads = options.threads or "the engine's choice"
    return f"{options.runs} runs after {options.warmup} to warm up; threads: {threads}; image: {sources}; times in ms"


def _table(rows: Sequence[Row]) -> str:
    header = (
        "bundle",
        "input",
        "MB",
        "p50",
        "p90",
        "p99",
        "pre",
        "engine",
        "post",
        "img/s",
        "RSS MB",
        "cold s",
    )
    return format_table(header, [_cells(row) for row in rows])


def _cells(row: Row) -> tuple[str, ...]:
    stats, cold = row.latency, row.cold_start
    stages = (stats.preprocess, stats.engine, stats.postprocess)
    return (
        row.bundle,
        row.input,
        f"{row.model_bytes / 1e6:.2f}",
        *(f"{value:.2f}" for value in (stats.total.p50, stats.total.p90, stats.total.p99)),
        *(f"{stage.p50:.2f}" for stage in stages),
        f"{stats.images_per_second:.1f}",
        f"{cold.peak_rss_bytes / 1e6:.0f}",
        f"{cold.first_result_s:.2f}",
    )


if __name__ == "__main__":
    exit_with_one_line(main)
