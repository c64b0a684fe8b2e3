"""The charts of a page as inline SVG, whose lines and letters take the color of the page's text."""

import html
import re
from collections.abc import Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any

from distill.compare.measured import Measured
from distill.compare.plots import histograms, thresholds
from distill.page.records import RunRecord
from distill.reporting.figures import panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = ("#3b82c4", "#d97f2b", "#2f9e72", "#b8569c", "#8a7d3a", "#7a6fd0")
"""Readable on white and on black; lines differ in style, too."""
STYLES = ("-", "--", "-.", ":")
MARKERS = "osD^v*P"
INK, PAPER = "#000000", "#ffffff"
LEAST = 2
"""Points of a curve."""
LEAST_SPAN = 0.05
"""Smallest range of the scores that a chart shows, as a fraction of the largest."""


def training_chart(runs: Sequence[RunRecord]) -> str:
    """Loss and validation score of each training, one figure each: side by side, or on a phone below each other."""
    metric = runs[0].metric
    score = _score_key(runs, f"val_{runs[0].first.metric.lower()}")
    curves = (
        ("loss", "training loss", 1.0, "Loss by step of each training"),
        (score, f"validation {metric.header}", metric.factor, "Validation score by step of each training"),
    )
    charts = ""
    for key, title, factor, description in curves:
        figure, (axes,) = panels(1)
        charts += svg(figure, description) if _curve(axes, runs, key, title, factor) else ""
    return charts


def _score_key(runs: Sequence[RunRecord], wanted: str) -> str:
    """The logged validation score: that of the metric, else the first."""
    keys = [key for run in runs for log in run.curves.values() for line in log for key in line]
    scores = [key for key in keys if key.startswith("val_")]
    return wanted if wanted in scores or not scores else scores[0]


def _curve(axes: Any, runs: Sequence[RunRecord], key: str, title: str, factor: float) -> bool:
    """Draw one logged value of all trainings; whether there was any."""
    index = 0
    for run in runs:
        for stage, log in run.curves.items():
            points = [(line["step"], factor * line[key]) for line in log if key in line]
            if not points:
                continue
            name = stage if len(runs) == 1 else f"{run.name} {stage}"
            style = STYLES[index % len(STYLES)] + ("" if len(points) >= LEAST else "o")
            axes.plot(*zip(*points, strict=True), style, color=COLORS[index % len(COLORS)], label=name)
            index += 1
    axes.set(title=title, xlabel="step")
    axes.grid(alpha=0.3)
    if index:
        axes.legend()
    return index > 0


def latency_chart(runs: Sequence[RunRecord]) -> str:
    """Score against the median latency of every network, on a logarithmic scale."""
    from matplotlib.ticker import LogFormatter  # optional dependency

    figure, (axes,) = panels(1)
    metric = runs[0].metric
    for number, run in enumerate(runs):
        for index, row in enumerate(run.report.rows):
            if row.latency is None:
                continue
            marker = MARKERS[index % len(MARKERS)]
            name = row.name if len(runs) == 1 else f"{run.name} {row.name}"
            point = [row.latency.total.p50], [metric.factor * row.score]
            axes.plot(*point, marker, color=COLORS[number % len(COLORS)], label=name, markersize=8)
    axes.set(xscale="log", xlabel="ms (median)", ylabel=metric.header, title="score against latency")
    axes.margins(x=0.15, y=0.15)
    axes.set_ylim(*_widened(*axes.get_ylim()))
    for axis_formatter in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        axis_formatter(LogFormatter(minor_thresholds=(1.5, 0.6)))  # 20 and 30 instead of powers of ten
    axes.grid(alpha=0.3)
    axes.legend()
    return svg(figure, f"{metric.name} against the median latency in milliseconds of each network")


def _widened(low: float, high: float) -> tuple[float, float]:
    """Limits at least `LEAST_SPAN` apart, so that equal networks look equal."""
    more = LEAST_SPAN * max(abs(low), abs(high)) - (high - low)
    return (low - more / 2, high + more / 2) if more > 0 else (low, high)


def threshold_charts(measured: Measured, name: str) -> str:
    """Histograms and threshold curves of a class."""
    return svg(histograms([measured], name), f"Histograms of the probability of {name}") + svg(
        thresholds([measured], name), f"Precision, recall and F1 of {name} by threshold"
    )


def svg(figure: "Figure", description: str) -> str:
    """A figure as an SVG element; black becomes the color of the text around it."""
    import matplotlib as mpl  # optional dependency

    file = StringIO()
    with mpl.rc_context({"svg.hashsalt": description, "svg.fonttype": "none"}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor").replace(PAPER, "var(--paper)")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # several charts of a page would share them
    return text.replace("<svg ", f'<svg role="img" aria-label="{html.escape(description)}" ', 1)
