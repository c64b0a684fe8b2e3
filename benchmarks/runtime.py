"""What does the runtime add to the bare engine? `python benchmarks/runtime.py [BUNDLE …] [--soak MINUTES]`.

Times, in turns, on each CPU backend and precision: the bare engine on a prepared tensor; `model(image)` for an image of
the network's size and for a video frame; and a naive runtime around the same network (OpenCV's area resize,
normalization and arg-max of full-size scores in numpy). Without a BUNDLE an untrained `edge-small` is exported, since
speed does not depend on its weights. `--soak` then runs `model.stream` on a video file for minutes.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: imports start at the repository, not in this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from benchmarks.runtime_rivals import naive_form, naive_runtime, session
from benchmarks.runtime_soak import percentiles, soak, soak_table, write_video
from benchmarks.turns import in_turns
from deploy.backends.auto import installed
from deploy.backends.engine import CPU, CPU_MODELS
from deploy.bundle.bundle_files import read_manifest, write_bundle
from deploy.bundle.manifest import INT8_CPU, MODEL, ClassInfo, InputSpec, Manifest, OutputSpec
from deploy.errors import UserError, exit_with_one_line
from deploy.files.atomic import write_json
from deploy.loading import load
from deploy.measure import machine
from deploy.table import format_table, int8_notes_by_backend

STUDENT, SIZE, CLASSES = "edge-small", 320, 11
"""The network that is measured without a bundle."""
BLOCK = 10
"""Calls in one turn."""
BARE = "bare engine"


@dataclass(frozen=True)
class Row:
    """One way to call one network."""

    bundle: str
    backend: str
    precision: str
    way: str
    ms: tuple[float, float, float]
    """p50, p90, p99."""
    ratio: float
    """Median time, as a multiple of that of the bare engine."""


def main(argv: Sequence[str]) -> int:
    """Measure, print the tables and write the JSON."""
    options = _parser().parse_args(argv)
    about = machine.describe()
    print(machine.summary(about))
    with tempfile.TemporaryDirectory() as scratch:
        bundles = options.bundles or [_untrained(Path(scratch) / f"{STUDENT}.bundle")]
        rows = [row for bundle in bundles for row in measure_bundle(bundle, options)]
        print(table(rows))
        report = {
            "machine": about,
            "frame": options.frame,
            "runs": options.runs,
            "rows": [asdict(row) for row in rows],
        }
        if options.soak:
            video = options.video or Path(scratch) / "video.mp4"
            if not options.video:
                write_video(video, options.frame)
            model = load(bundles[0], options.backends[0] if options.backends else "auto", options.threads)
            found = soak(model, video, options.soak)
            print(f"\n{model.engine.name}, {video.name}\n{soak_table(found)}")
            report |= {"soak": asdict(found) | {"engine": model.engine.name}}
    if options.json:
        write_json(options.json, report)
    return 0


def measure_bundle(folder: Path, options: argparse.Namespace) -> list[Row]:
    """Time one bundle on all backends in both precisions.

    Raises:
        UserError: the bundle is no segmentation of color images.
    """
    manifest = read_manifest(folder)
    spec = manifest.input
    if (manifest.task, spec.dtype, len(spec.channels)) != ("segmentation", "uint8", 3):
        raise UserError(f"{folder}: only segmentation of color images is compared")
    rows = []
    for backend in options.backends or installed():
        for precision in ("fp32", "int8"):
            if CPU_MODELS[precision] in manifest.files:
                ways = _ways(folder, spec, backend, precision, options)
                rows += _rows(
                    folder.name, backend, precision, in_turns(ways, -(-options.runs // BLOCK), BLOCK)
                )
    return rows


def _ways(
    folder: Path, spec: InputSpec, backend: str, precision: str, options: argparse.Namespace
) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (spec.height, spec.width, 3), np.uint8)
    frame = rng.integers(0, 256, (*options.frame, 3), np.uint8)
    small, large = (f"{one.shape[1]}×{one.shape[0]}" for one in (image, frame))
    file = (folder / CPU_MODELS[precision]).read_bytes()
    bare = session(backend, file, options.threads)
    naive = naive_runtime(session(backend, naive_form(file), options.threads), spec)
    model = load(folder, backend, options.threads, precision=precision)
    return {
        BARE: lambda: bare(image[None]),
        f"runtime, {small}": lambda: model(image).labels,
        f"naive, {small}": lambda: naive(image),
        f"runtime, {large}": lambda: model(frame).labels,
        f"naive, {large}": lambda: naive(frame),
    }


def _rows(bundle: str, backend: str, precision: str, times: Mapping[str, list[float]]) -> list[Row]:
    base = percentiles(times[BARE])[0]
    found = {way: percentiles(values) for way, values in times.items()}
    return [Row(bundle, backend, precision, way, ms, ms[0] / base) for way, ms in found.items()]


def _untrained(folder: Path) -> Path:
    """Export a bundle of `STUDENT` without training."""
    from benchmarks.networks import candidates, models_of  # start-up time: torch

    spec = InputSpec(("R", "G", "B"), SIZE, SIZE, "uint8", "NHWC", mean=(120.0,) * 3, std=(60.0,) * 3)
    [candidate] = candidates([STUDENT], CLASSES)
    models = models_of(candidate, spec)
    manifest = Manifest(
        name=STUDENT,
        classes=tuple(ClassInfo(str(number), (20 * number, 100, 200)) for number in range(CLASSES)),
        input=spec,
        outputs=(
            OutputSpec("labels", "uint8", ("N", SIZE, SIZE), "label id"),
            OutputSpec("logits", "float32", ("N", CLASSES, "h", "w"), "scores before the softmax"),
        ),
    )
    files = {MODEL: models["fp32"], INT8_CPU: models["int8"]}
    write_bundle(folder, manifest, files, {MODEL: "fp32", INT8_CPU: "int8"})
    return folder


def table(rows: Sequence[Row]) -> str:
    """One line a way: milliseconds, and the ratio to the bare engine; and where INT8 is slower."""
    lines = [
        (
            row.bundle,
            row.backend,
            row.precision,
            row.way,
            *(f"{ms:.2f}" for ms in row.ms),
            f"{row.ratio:.2f}×",
        )
        for row in rows
    ]
    header = ("bundle", "backend", "precision", "", "p50 ms", "p90", "p99", "bare")
    medians = {(f"{row.bundle}, {row.way}", row.backend, row.precision): row.ms[0] for row in rows}
    return "\n".join([format_table(header, lines), *int8_notes_by_backend(medians)])


def _frame(text: str) -> tuple[int, int]:
    """(height, width) from "1920x1080"."""
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT")
    return int(height), int(width)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks/runtime.py", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "bundles", nargs="*", type=Path, metavar="BUNDLE", help="default: an untrained edge-small"
    )
    parser.add_argument("--backends", nargs="+", choices=CPU, help="default: all that are installed")
    parser.add_argument("--threads", type=int, help="threads of the engine (default: its own choice)")
    parser.add_argument("--runs", type=int, default=100, help="calls of each (100)")
    parser.add_argument(
        "--frame",
        type=_frame,
        default=(1080, 1920),
        metavar="WIDTHxHEIGHT",
        help="size of the frame (1920x1080)",
    )
    parser.add_argument("--soak", type=float, default=0.0, metavar="MINUTES", help="stream a video that long")
    parser.add_argument(
        "--video", type=Path, help="of the stream (default: one of moving disks is generated)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    return parser


if __name__ == "__main__":
    exit_with_one_line(lambda: main(sys.argv[1:]))
