"""The largest student within a budget of milliseconds: a pure function of a measurement, and the record of a run."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from deploy.errors import UserError
from deploy.files.json_files import read_record
from deploy.measure.machine import summary
from deploy.measure.records import Measurement, Option, Row, Shape, Timed, medians_of, named
from deploy.table import format_table, int8_notes
from distill.run_folder import RESTART
from student.candidates import same_family

CHOICE = "student-choice.json"
"""In the folder of a run."""
PRECISIONS = ("fp32", "fp16")
"""Those that every bundle has or `edgedistill build` makes without calibration."""
HOW = (
    "edgedistill students --export FOLDER --run PRESET … (the preset and fields of this run), then on the device:"
    " edgedistill measure FOLDER"
)


class StudentChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`student-choice.json`: what was measured, and the student that a run trains for it."""

    max_ms: float
    arch: str
    """The chosen network."""
    ms: float
    """Its median."""
    backend: str
    precision: str
    precisions: tuple[str, ...]
    """Precisions in which the run may ship the student; the fastest counts."""
    source: str
    """The file of the measurement; empty if this run measured on its own machine."""
    machine: dict[str, object]
    rows: tuple[Row, ...]
    """All candidates, the one with the fewest operations first."""
    trained: Timed | None = None
    """The student's fastest form at the end of the run, if it was timed then."""


def choose(
    measurement: Measurement,
    arch: str,
    options: dict[str, Option],
    shape: Shape,
    max_ms: float,
    int8: bool,
    source: str = "",
) -> StudentChoice:
    """Choose the candidate with the most multiply-accumulates whose fastest form is within the budget.

    Args:
        measurement: of candidates; those of other families, options or shapes do not count.
        arch: a network of the family.
        options: options of the run's student that are not at their defaults.
        shape: of the run.
        max_ms: the budget: median milliseconds of one inference, engine alone.
        int8: whether the run ships its student in INT8.
        source: the file that holds the measurement; empty: it was made here.

    Raises:
        UserError: the measurement does not fit the run, or no candidate is within the budget.
    """
    rows = sorted(_fitting(measurement, arch, options, shape, source), key=_macs)
    precisions = (*PRECISIONS, "int8") if int8 else PRECISIONS
    timed = [(row, form) for row in rows if (form := row.fastest(precisions)) is not None]
    if not timed:
        raise UserError(f"{source}: has no candidate in {' or '.join(precisions)}; measure again: {HOW}")
    within = [(row, form) for row, form in timed if form.p50 <= max_ms]
    if not within:
        raise UserError(_too_slow(timed, max_ms, source))
    row, form = within[-1]
    assert row.candidate is not None
    return StudentChoice(
        max_ms,
        row.candidate.arch,
        form.p50,
        form.backend,
        form.precision,
        precisions,
        source,
        measurement.machine,
        tuple(rows),
    )


def words(choice: StudentChoice) -> str:
    """The choice in one line."""
    where = f"measured in {choice.source}" if choice.source else "measured here"
    return (
        f"student: {choice.arch}, {choice.ms:.2f} ms by {choice.backend} {choice.precision}, the largest of"
        f" {len(choice.rows)} candidates within {choice.max_ms:g} ms ({where})"
    )


def title(choice: StudentChoice) -> str:
    """What the table shows, in one line."""
    where = f"{summary(choice.machine)}, from {choice.source}" if choice.source else summary(choice.machine)
    found = f"; trained: {trained_words(choice)}" if choice.trained else ""
    return f"The student is the largest within {choice.max_ms:g} ms, engine alone ({where}){found}:"


def trained_words(choice: StudentChoice) -> str:
    """The time of the trained student, and whether it is within the budget."""
    form = choice.trained
    assert form is not None
    verdict = "within" if form.p50 <= choice.max_ms else "over"
    return (
        f"{form.p50:.2f} ms by {form.backend} {form.precision}, {verdict} the budget of {choice.max_ms:g} ms"
    )


def table(choice: StudentChoice) -> str:
    """One line a candidate: its size, the milliseconds of each precision, and whether it is within the budget.

    Lines below say where INT8 is slower than fp32.
    """
    columns = [
        precision
        for precision in choice.precisions
        if any(row.fastest((precision,)) is not None for row in choice.rows)
    ]
    header = ("candidate", "params M", "GMAC", *(f"{precision} ms" for precision in columns), "fastest", "")
    lines, notes = [_line(choice, row, columns) for row in choice.rows], medians_of(choice.rows, columns)
    return "\n".join([format_table(header, lines), *int8_notes(notes)])


def read_choice(path: Path) -> StudentChoice:
    """Read the choice of a run.

    Raises:
        UserError: the file is missing or damaged.
    """
    return read_record(path, StudentChoice, RESTART)


def _fitting(
    measurement: Measurement, arch: str, options: dict[str, Option], shape: Shape, source: str
) -> list[Row]:
    """The rows of candidates of the family with these options and shape.

    Raises:
        UserError: there are none; the message says what differs first.
    """
    rows = [row for row in measurement.rows if row.candidate is not None]
    if not rows:
        raise UserError(
            f"{source}: has no candidates, only bundles, and one network's time tells nothing of others; {HOW}"
        )
    shaped = [row for row in rows if row.shape == shape]
    if not shaped:
        there = "; ".join(dict.fromkeys(row.shape.text for row in rows))
        raise UserError(f"{source}: was measured at {there}, the run needs {shape.text}; {HOW}")
    found = [
        row
        for row in shaped
        if row.candidate and same_family(row.candidate.arch, arch) and row.candidate.options == options
    ]
    if not found:
        there = ", ".join(row.name for row in shaped)
        raise UserError(
            f"{source}: has no candidate like {named(arch, options)}, only {there}; choose a --student.arch and"
            f" options that it has, or {HOW}"
        )
    return found


def _too_slow(timed: Sequence[tuple[Row, Timed]], max_ms: float, source: str) -> str:
    row, form = min(timed, key=lambda pair: pair[1].p50)
    where = f"in {source}" if source else "on this machine"
    return (
        f"--student.max-ms {max_ms:g}: no candidate is that fast {where}; the fastest is {row.name} with"
        f" {form.p50:.2f} ms ({form.backend} {form.precision}). Allow more, or give a smaller --data.size or a"
        " --student.arch of another family"
    )


def _macs(row: Row) -> int:
    return row.candidate.macs if row.candidate else 0


def _line(choice: StudentChoice, row: Row, columns: Sequence[str]) -> tuple[str, ...]:
    best, one = row.fastest(choice.precisions), row.candidate
    assert one is not None
    forms = [row.fastest((precision,)) for precision in columns]
    verdict = "too slow" if best is None or best.p50 > choice.max_ms else "within"
    return (
        row.name,
        f"{one.parameters / 1e6:.2f}",
        f"{one.macs / 1e9:.3f}",
        *("–" if form is None else f"{form.p50:.2f}" for form in forms),
        "–" if best is None else f"{best.backend} {best.precision}",
        "chosen" if one.arch == choice.arch else verdict,
    )
