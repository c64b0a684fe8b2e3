"""The tables of an evaluation: as CSV files, and as aligned text."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deploy.analysis.by_class import NO_CLASS
from deploy.table import format_table
from distill.evaluate.result import Result
from distill.reporting.csv_files import Cell, write_csv


def write_tables(out: Path, result: Result) -> list[Path]:
    """Write `per_image.csv`, and for classes `per_class.csv` and `confusion.csv` (pixels, a row for each label).

    Scores are fractions in 0..1 or the negative of an error, with six decimals; empty where they do not exist.

    Returns:
        The paths of the tables.
    """
    details = list(result.found.total.details())
    rows = (
        [one.name, one.score, *(one.details.get(name) for name in details)] for one in result.found.images
    )
    write_csv(out / "per_image.csv", ["image", result.task.metric.key, *details], rows)
    paths = [out / "per_image.csv"]
    if result.confusion is not None:
        write_csv(out / "per_class.csv", _CLASS_HEADER, result.by_class())
        names = [one.name for one in result.classes]
        matrix = zip(names, result.confusion.tolist(), strict=True)
        write_csv(
            out / "confusion.csv",
            ["label \\ prediction", *names, NO_CLASS],
            ([name, *row] for name, row in matrix),
        )
        paths += [out / "per_class.csv", out / "confusion.csv"]
    return paths


_CLASS_HEADER = ("class", "IoU", "F1", "precision", "recall", "share of pixels", "taken for")


def class_table(result: Result) -> str:
    """The scores of each class as aligned text, in percent."""
    rows = [
        [name, *(_percent(value) for value in figures), confused or "–"]
        for name, *figures, confused in result.by_class()
    ]
    header = [_CLASS_HEADER[0], *(f"{name} %" for name in _CLASS_HEADER[1:-1]), _CLASS_HEADER[-1]]
    return format_table(header, rows)


def shift_table(results: Sequence[Result]) -> str:
    """The scores on each set of images, and how far they lie from the first."""
    metric, details = results[0].task.metric, list(results[0].found.total.details())
    several = len(results) > 1
    header = ["data", "split", "images", metric.header, *(["change"] if several else [])]
    first, rows = results[0].found.total.score(), []
    for one in results:
        score, shown = one.found.total.score(), one.found.total.details()
        change = [metric.change(score - first, 2)] if several else []
        figures = (str(len(one.found.images)), metric.text(score), *change)
        rows.append(
            [one.source.name, one.source.split, *figures, *(_percent(shown[name]) for name in details)]
        )
    return format_table([*header, *(f"{name} %" for name in details)], rows)


def _percent(value: Cell) -> str:
    return "–" if not isinstance(value, float) or np.isnan(value) else f"{100 * value:.2f}"
