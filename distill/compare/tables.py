"""The tables of a comparison: as CSV files, and as aligned text for the terminal."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from deploy.analysis.calibration import BINS
from deploy.analysis.curves import average_precision, roc_auc
from deploy.analysis.paired import Comparison, Interval
from deploy.table import format_table
from distill.compare.measured import Measured
from distill.reporting.csv_files import Cell, write_csv

Pairs = Sequence[tuple[str, str, Comparison]]


def write_tables(out: Path, measured: Sequence[Measured], pairs: Pairs, positive: int) -> list[Path]:
    """Write the tables as CSV files.

    Figures are fractions in 0..1 with six decimals; a cell is empty if a figure does not exist.

    Args:
        out: folder for per_image.csv, thresholds.csv, calibration.csv, comparison.csv and summary.csv.
        measured: the results of each model.
        pairs: the comparison of each pair of models.
        positive: the class of the curves.

    Returns:
        The paths of the tables.
    """
    name = measured[0].classes[positive].name
    tables = {
        "per_image.csv": (_image_header(measured[0], name), _image_rows(measured, positive)),
        "thresholds.csv": (_THRESHOLDS, _threshold_rows(measured)),
        "calibration.csv": (_CALIBRATION, _calibration_rows(measured)),
        "comparison.csv": (_COMPARISON, _comparison_rows(pairs)),
        "summary.csv": (list(summary_of(measured[0], positive)), _summary_rows(measured, positive)),
    }
    for file, (header, rows) in tables.items():
        write_csv(out / file, header, rows)
    return [out / file for file in tables]


def summary_of(one: Measured, positive: int) -> dict[str, Cell]:
    """The figures of one model over all images, by name."""
    scores, name, found = one.findings.dataset(), one.classes[positive].name, one.findings
    return {
        "model": one.name,
        "engine": one.model.engine.name,
        "images": len(found.names),
        "mIoU": float(scores.miou[0]),
        "pixel accuracy": float(scores.pixel_accuracy[0]),
        f"IoU {name}": float(scores.iou[0, positive]),
        f"F1 {name}": float(scores.f1[0, positive]),
        "best F1": one.best.f1,
        "best threshold": one.best.threshold,
        "AP": average_precision(one.curve),
        "AUC": roc_auc(one.curve),
        "ECE": found.reliability.ece(),
        "temperature": one.temperature,
        "ECE with temperature": found.rescaled.ece() if found.rescaled else None,
    }


def summary_table(measured: Sequence[Measured], positive: int) -> str:
    """The figures of all models as aligned text, shares in percent."""
    plain = ("images", "best threshold", "temperature")
    rows = [summary_of(one, positive) for one in measured]
    for row in rows:
        del row["engine"]
    header = [name if name == "model" or name in plain else f"{name} %" for name in rows[0]]
    return format_table(header, [[_shown(v, k in plain) for k, v in row.items()] for row in rows])


def comparison_table(pairs: Pairs) -> str:
    """Every pair of models as aligned text, differences in percentage points with their 95 % intervals."""
    header = ("first – second", "wins", "losses", "ties", "image mIoU", "95 %", "total mIoU", "95 %")
    rows = [
        (
            f"{first} – {second}",
            *(str(count) for count in (result.wins, result.losses, result.ties)),
            *_points(result.mean),
            *_points(result.dataset),
        )
        for first, second, result in pairs
    ]
    return format_table(header, rows)


def _image_header(one: Measured, name: str) -> list[str]:
    classes = [info.name for info in one.classes]
    each = [f"{what} {label}" for what in ("IoU", "share", "predicted share") for label in classes]
    return ["image", "model", "valid share", "mIoU", f"F1 {name}", "pixel accuracy", *each]


def _image_rows(measured: Sequence[Measured], positive: int) -> Iterable[list[Cell]]:
    scores = [one.findings.images() for one in measured]
    for index, image in enumerate(measured[0].findings.names):
        for one, its in zip(measured, scores, strict=True):
            figures = (its.miou[index], its.f1[index, positive], its.pixel_accuracy[index])
            each = np.concatenate([its.iou[index], its.share[index], its.predicted[index]])
            yield [image, one.name, float(one.findings.valid_share[index]), *map(float, (*figures, *each))]


_THRESHOLDS = (
    *("model", "threshold", "precision", "recall", "F1", "IoU", "false positive rate"),
    *("true positives", "false positives", "false negatives"),
)


def _threshold_rows(measured: Sequence[Measured]) -> Iterable[list[Cell]]:
    for one in measured:
        c = one.curve
        figures = (c.thresholds, c.precision, c.recall, c.f1, c.iou, c.false_positive_rate)
        counts = (c.true_positives, c.false_positives, c.false_negatives)
        for row, pixels in zip(zip(*figures, strict=True), zip(*counts, strict=True), strict=True):
            yield [one.name, *map(float, row), *map(int, pixels)]


_CALIBRATION = ("model", "temperature", "from", "to", "pixels", "confidence", "accuracy")


def _calibration_rows(measured: Sequence[Measured]) -> Iterable[list[Cell]]:
    for one in measured:
        forms = [(1.0, one.findings.reliability), (one.temperature, one.findings.rescaled)]
        for temperature, reliability in forms:
            if reliability:
                rows = zip(reliability.count, *reliability.curve(), strict=True)
                for index, (pixels, confidence, accuracy) in enumerate(rows):
                    edges = (index / BINS, (index + 1) / BINS)
                    yield [one.name, temperature, *edges, int(pixels), float(confidence), float(accuracy)]


_COMPARISON = (
    *("first", "second", "images", "wins", "losses", "ties"),
    *("image mIoU difference", "low", "high", "total mIoU difference", "total low", "total high"),
)


def _comparison_rows(pairs: Pairs) -> Iterable[list[Cell]]:
    for first, second, it in pairs:
        intervals = (
            it.mean.value,
            it.mean.low,
            it.mean.high,
            it.dataset.value,
            it.dataset.low,
            it.dataset.high,
        )
        yield [first, second, it.images, it.wins, it.losses, it.ties, *intervals]


def _summary_rows(measured: Sequence[Measured], positive: int) -> Iterable[list[Cell]]:
    for one in measured:
        yield list(summary_of(one, positive).values())


def _shown(value: Cell, plain: bool) -> str:
    if value is None or value != value:
        return "–"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3f}" if plain else f"{100 * value:.2f}"


def _points(interval: Interval) -> tuple[str, str]:
    return f"{100 * interval.value:+.2f}", f"[{100 * interval.low:+.2f}, {100 * interval.high:+.2f}]"
