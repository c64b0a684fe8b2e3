"""`edgedistill measure FOLDER|BUNDLE…`: how fast candidates and bundles are on this device, without torch."""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from deploy.bundle.bundle_files import read_manifest
from deploy.bundle.manifest import MANIFEST
from deploy.command_parser import CommandParser
from deploy.errors import UserError
from deploy.files.atomic import write_json
from deploy.files.json_output import add_json, print_json
from deploy.measure.machine import summary
from deploy.measure.records import CANDIDATES, Measurement, Row, Timed, medians_of, read_candidates
from deploy.measure.timing import Subject, measure_bundles
from deploy.table import format_table, int8_notes
from deploy.verbosity import note

COLUMNS = ("fp32", "fp16", "int8")


def main(argv: Sequence[str]) -> int:
    """Measure, print the table, write the JSON; returns the exit code.

    Raises:
        UserError: nothing to measure, or as `measure_bundles` does.
    """
    options = _parser().parse_args(argv)
    if options.threads is not None and options.threads < 1:
        raise UserError(f"--threads {options.threads}: give at least 1, or leave it out")
    if not options.seconds > 0:
        raise UserError(f"--seconds {options.seconds:g}: must be above 0")
    subjects = distinct([subject for path in options.paths for subject in subjects_of(path)])
    measurement = measure_bundles(subjects, options.threads, options.seconds, say)
    write_json(options.output, measurement)
    if options.json:
        print_json(measurement)
        return 0
    print(summary(measurement.machine))
    print(table(measurement))
    print(f"written to {options.output}")
    return 0


def subjects_of(path: Path) -> list[Subject]:
    """What to measure in a folder: itself if it is a bundle, else the candidates that its index lists.

    Raises:
        UserError: it is neither, or its index is damaged.
    """
    if (path / MANIFEST).is_file():
        return [Subject(path, read_manifest(path).name)]
    if not (path / CANDIDATES).is_file():
        what = f"has neither {MANIFEST} nor {CANDIDATES}" if path.is_dir() else "no such folder"
        raise UserError(
            f"{path}: {what}; give a bundle, or a folder that `edgedistill students --export` wrote"
        )
    found = read_candidates(path).candidates
    if not found:
        raise UserError(f"{path / CANDIDATES}: lists no candidates; export them again")
    return [Subject(path / one.bundle, one.name, one) for one in found]


def distinct(subjects: Sequence[Subject]) -> list[Subject]:
    """The subjects with names that tell them apart: the path of the bundle where a name repeats, as "student" does."""
    counts = Counter(one.name for one in subjects)
    return [one._replace(name=str(one.folder)) if counts[one.name] > 1 else one for one in subjects]


def table(measurement: Measurement) -> str:
    """One line a network: parameters and operations of candidates, the fastest backend of each precision."""
    columns = [
        precision
        for precision in COLUMNS
        if any(form.precision == precision for row in measurement.rows for form in row.forms)
    ]
    header = [column for precision in columns for column in (f"{precision} ms", "by")]
    lines = [_line(row, [row.fastest((precision,)) for precision in columns]) for row in measurement.rows]
    shapes = dict.fromkeys(row.shape.text for row in measurement.rows)
    title = f"{'; '.join(shapes)}: median of one inference, engine alone, all in turns"
    notes = int8_notes(medians_of(measurement.rows, columns))
    return "\n".join([title, format_table(("network", "params M", "GMAC", *header), lines), *notes])


def _line(row: Row, best: Sequence[Timed | None]) -> tuple[str, ...]:
    one = row.candidate
    counts = (f"{one.parameters / 1e6:.2f}", f"{one.macs / 1e9:.3f}") if one else ("–", "–")
    cells = [cell for form in best for cell in ((f"{form.p50:.2f}", form.backend) if form else ("–", "–"))]
    return (row.name, *counts, *cells)


def say(line: str) -> None:
    """Print a line of progress, unless quiet."""
    note(line)


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="edgedistill measure", description="Measure how fast candidates and bundles are on this device."
    )
    parser.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="FOLDER|BUNDLE",
        help="folder written by `edgedistill students --export`, or a bundle",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("measured.json"),
        metavar="FILE",
        help="for --student.on of a training run (default: measured.json)",
    )
    parser.add_argument("--threads", type=int, help="CPU threads of the engines (default: their own choice)")
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="about how long to time each form of a network (default 1)"
    )
    add_json(parser)
    return parser
