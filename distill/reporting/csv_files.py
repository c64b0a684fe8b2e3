"""Tables as CSV files."""

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from deploy.files.atomic import atomic_write

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Beginnings of a text that a spreadsheet would run; it gets an apostrophe in front (OWASP, CSV injection)."""

NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")

Cell = str | int | float | None
"""Floats are written with six decimals; None and NaN leave the cell empty."""


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Write a table atomically. Rows may come from a generator; if it raises, an existing file stays as it was."""
    with atomic_write(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for row in rows:
            writer.writerow([_text(value) for value in row])


def _text(value: Cell) -> str:
    if value is None or value != value:  # NaN
        return ""
    if isinstance(value, str) and value.startswith(FORMULA) and not NUMBER.fullmatch(value):
        return f"'{value}"
    return f"{value:.6f}" if isinstance(value, float) else str(value)
