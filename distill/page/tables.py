"""The tables of a page as rows of text."""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from deploy.backends.engine import model_file
from deploy.evaluation.receipt import Receipt
from deploy.table import int8_notes
from distill.page.predictions import Predictor
from distill.page.records import RowRecord, RunRecord


class Table(NamedTuple):
    """A heading for each column, and rows of as many cells; all columns but the first hold numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def networks_table(runs: Sequence[RunRecord]) -> Table:
    """Every network of every run: size, score, latency."""
    metric, several = runs[0].metric, len(runs) > 1
    detail = main_detail(runs[0].report.rows[0].details)
    header = [
        "network",
        "params M",
        "GMAC",
        metric.header,
        f"{detail} %",
        "ms p50",
        "ms p90",
        "MB",
        "training s",
    ]
    return Table(
        header,
        [
            [
                f"{f'{run.name}: ' if several else ''}{row.name} · {row.arch}",
                "–" if row.parameters is None else f"{row.parameters / 1e6:.2f}",
                "–" if row.macs is None else f"{row.macs / 1e9:.3f}",
                metric.text(row.score),
                percent(row.details.get(detail)),
                "–" if row.latency is None else f"{row.latency.total.p50:.2f}",
                "–" if row.latency is None else f"{row.latency.total.p90:.2f}",
                _megabytes(run, row),
                f"{row.train_seconds:.0f}",
            ]
            for run in runs
            for row in run.report.rows
        ],
    )


def int8_lines(run: RunRecord) -> list[str]:
    """Where INT8 is slower than fp32, as the run itself says below its results."""
    rows = [(row.form, row.latency) for row in run.report.rows if row.form is not None]
    return int8_notes(
        {
            (Path(bundle).name, precision): latency.total.p50
            for (bundle, precision), latency in rows
            if latency is not None
        }
    )


def _megabytes(run: RunRecord, row: RowRecord) -> str:
    if row.form is None:
        return "–"
    path = model_file(row.bundle(run.folder), "onnxruntime", row.form[1])
    return f"{path.stat().st_size / 1e6:.1f}" if path.is_file() else "–"


def seeds_table(runs: Sequence[RunRecord]) -> Table | None:
    """Mean and standard deviation over runs that differ in their seeds alone; None if there are no such."""
    settings = [{k: v for k, v in run.config.items() if k not in ("seed", "out")} for run in runs]
    seeds = {str(run.config.get("seed")) for run in runs}
    same = all(one == settings[0] for one in settings) and all(
        run.schedule == runs[0].schedule for run in runs
    )
    if len(runs) < 2 or len(seeds) < len(runs) or not same:
        return None
    metric, scores = runs[0].metric, defaultdict(list)
    for run in runs:
        for row in run.report.rows:
            scores[f"{row.name} · {row.arch}"].append(row.score)
    rows = [
        [
            name,
            str(len(got)),
            metric.text(statistics.mean(got)),
            f"{abs(metric.factor) * statistics.stdev(got):.2f}",
        ]
        for name, got in scores.items()
        if len(got) > 1
    ]
    return Table(["network", "seeds", f"{metric.header}, mean", "standard deviation"], rows)


def receipt_table(receipt: Receipt) -> Table:
    """The hops of a receipt, as `deploy.evaluation.receipt.table` prints them."""
    detail = main_detail(receipt.hops[0].details)
    metric = receipt.shown
    header = ("hop", metric.header, "agreement %", "vs first %", f"{detail} %", "MB", "verdict")
    return Table(
        header,
        [
            (
                hop.name,
                metric.text(hop.score),
                f"{100 * hop.agreement_previous:.3f}",
                f"{100 * hop.agreement_first:.3f}",
                percent(hop.details.get(detail)),
                f"{hop.bytes / 1e6:.1f}" if hop.bytes else "–",
                "passed" if hop.passed else "FAILED",
            )
            for hop in receipt.hops
        ],
    )


def classes_table(predictors: Sequence[Predictor]) -> Table:
    """IoU of each class by each network, and of the last one precision, recall and what it is taken for."""
    header = ["class", "share %", *(f"IoU % {one.name}" for one in predictors), "precision %", "recall %"]
    last = predictors[-1].classes
    return Table(
        [*header, "mostly taken for"],
        [
            [
                last[index].name,
                percent(last[index].share),
                *(percent(one.classes[index].iou) for one in predictors),
                percent(last[index].precision),
                percent(last[index].recall),
                last[index].taken_for or "–",
            ]
            for index in range(len(last))
        ],
    )


def main_detail(details: Mapping[str, float | None]) -> str:
    """The name of the figure beside the score; files keep names in alphabetical order, classes among them."""
    return next((name for name in details if not name.startswith("IoU ")), "")


def percent(value: float | None) -> str:
    """A fraction in percent; a dash for None and NaN."""
    return "–" if value is None or value != value else f"{100 * value:.2f}"
