"""Results of quantization: a record for `quantization.json`, a table and a chart."""

from html import escape

import msgspec

from deploy.evaluation.metric import Metric
from deploy.evaluation.receipt import Budget
from deploy.quantize.options import Form
from deploy.table import format_table


class Figures(msgspec.Struct, frozen=True):
    """Score of a model, and its agreement with fp32."""

    score: float
    """Of the task's metric: mIoU, the success of grasps, or a negative error. Higher is better."""
    agreement: float
    """Share of valid pixels with the same class as from the fp32 model, 0..1."""


class Sensitivity(msgspec.Struct, frozen=True):
    """A layer or a block of layers, and the figures of the model with only it in float."""

    name: str
    layers: tuple[str, ...]
    figures: Figures


class Report(msgspec.Struct, frozen=True):
    """What `deploy.quantize.search.quantize` tried and chose; `quantization.json` is this as JSON."""

    metric: str
    """The name of the figures' score."""
    images: int
    """Calibration images with a valid pixel."""
    budget: Budget
    fp32: Figures
    calibrators: dict[str, Figures]
    """By calibrator, with all layers in INT8 except those that the user keeps in float; in the form `form`."""
    calibrator: str
    """The chosen calibrator."""
    int8: Figures
    """Figures of the resulting model, the worse of both forms."""
    layers: int
    """Convolutions and sums that can run in INT8."""
    all_int8: Figures
    """With all layers in INT8, in the form that `sensitivity` was measured in: the reference for its gains."""
    float_layers: tuple[str, ...]
    """The layers that the resulting model leaves in float."""
    ranges: dict[str, float]
    """By tensor on a grid: the magnitude that 127 represents."""
    sensitivity: tuple[Sensitivity, ...] = ()
    """Layers or blocks, ranked by the gain of leaving them in float; empty if not measured."""
    form: Form = "cpu"
    """The form by which calibrators and layers were ranked: the one that will run."""
    forms: dict[Form, Figures] = {}
    """Figures of the resulting model in each form."""
    unit: str = "%"
    factor: float = 100.0
    """How the score is shown; see `deploy.evaluation.metric.Metric`."""

    @property
    def shown(self) -> Metric:
        """How to show the score."""
        return Metric(self.metric, "", self.unit, self.factor)


def sensitivity_table(report: Report) -> str:
    """The ranking as an aligned table: what the model gains from each layer alone in float."""
    base, metric = report.all_int8, report.shown
    rows = [
        (
            row.name,
            metric.text(row.figures.score),
            f"{_gain(report, row):+.2f}",
            f"{100 * row.figures.agreement:.3f}",
            f"{100 * (row.figures.agreement - base.agreement):+.3f}",
        )
        for row in report.sensitivity
    ]
    ends = [
        ("(all in INT8)", metric.text(base.score), "", f"{100 * base.agreement:.3f}", ""),
        ("(all in float)", metric.text(report.fp32.score), "", f"{100 * report.fp32.agreement:.3f}", ""),
    ]
    return format_table(("in float", metric.header, "gain", "agreement %", "gain"), [*rows, *ends])


def _gain(report: Report, row: Sensitivity) -> float:
    """Gain of the score in the shown unit; above 0 is better, also for an error."""
    return abs(report.factor) * (row.figures.score - report.all_int8.score)


def _in_float(report: Report, row: Sensitivity) -> bool:
    return set(row.layers) <= set(report.float_layers)


_ROW, _LEFT, _PLOT, _RIGHT, _TOP = 18, 260, 360, 130, 52
"""Pixels: height of a row; widths of names, bars and numbers; height of the title."""


def _printable(name: str) -> str:
    """A layer's name without control characters, which XML cannot hold."""
    return "".join(letter if letter.isprintable() else "�" for letter in name)


def sensitivity_svg(report: Report) -> str:
    """The ranking as a bar chart: how much the score gains from each layer alone in float, in points or its unit.

    Bars of layers that the resulting model leaves in float are dark. A stand-alone SVG document, white background.
    """
    base, metric = report.all_int8.score, report.shown
    gains = [_gain(report, row) for row in report.sensitivity]
    low, high = min(0.0, *gains, 0.0), max(0.0, *gains, 0.0)
    scale = _PLOT / ((high - low) or 1.0)
    zero = _LEFT - low * scale
    width, height = _LEFT + _PLOT + _RIGHT, _TOP + _ROW * len(gains) + 12
    points = "points" if metric.unit == "%" else metric.unit
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
        ' font-family="sans-serif" font-size="12" fill="#222">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="12" y="20" font-size="14">{escape(report.metric)} gained with one layer in float, {points}</text>',
        f'<text x="12" y="38" fill="#666">all in INT8 ({escape(report.calibrator)}): {metric.text(base)} {metric.unit},'
        f" fp32: {metric.text(report.fp32.score)} {metric.unit}; dark: left in float</text>",
    ]
    for index, (row, gain) in enumerate(zip(report.sensitivity, gains, strict=True)):
        top = _TOP + _ROW * index
        start, length = zero + min(0.0, gain * scale), abs(gain) * scale
        color = "#1f4e79" if _in_float(report, row) else "#9dbfe0"
        parts += [
            f'<text x="{_LEFT - 8}" y="{top + 13}" text-anchor="end">{escape(_printable(row.name))}</text>',
            f'<rect x="{start:.1f}" y="{top + 3}" width="{length:.1f}" height="{_ROW - 6}" fill="{color}"/>',
            f'<text x="{_LEFT + _PLOT + 8}" y="{top + 13}">{gain:+.2f}</text>',
        ]
    bottom = _TOP + _ROW * len(gains)
    parts.append(f'<line x1="{zero:.1f}" y1="{_TOP}" x2="{zero:.1f}" y2="{bottom}" stroke="#222"/>')
    return "\n".join([*parts, "</svg>"]) + "\n"
