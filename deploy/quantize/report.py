"""What quantization found: a record for `quantization.json`, a table and a picture."""

from html import escape

import msgspec

from deploy.evaluation.metric import Metric
from deploy.evaluation.receipt import Budget
from deploy.table import format_table


class Figures(msgspec.Struct, frozen=True):
    """How well a model does. Fractions in 0..1."""

    score: float
    """mIoU, or the success of grasps."""
    agreement: float
    """Share of valid pixels that get the same class as from the fp32 model."""


class Sensitivity(msgspec.Struct, frozen=True):
    """A layer, or a block of layers, and the model's figures with it alone in float."""

    name: str
    layers: tuple[str, ...]
    figures: Figures


class Report(msgspec.Struct, frozen=True):
    """What `deploy.quantize.search.quantize` tried and chose; `msgspec.json.encode(report)` is `quantization.json`."""

    metric: str
    """The name of the figures' score."""
    images: int
    """Calibration images with a valid pixel."""
    budget: Budget
    fp32: Figures
    calibrators: dict[str, Figures]
    """With every layer in INT8, but for those that the user wants in float."""
    calibrator: str
    """The one chosen."""
    int8: Figures
    """Of the result."""
    layers: int
    """Convolutions and sums that can run in INT8."""
    float_layers: tuple[str, ...]
    """Those of them that the result leaves in float."""
    ranges: dict[str, float]
    """For each tensor on a grid the magnitude that is 127 steps."""
    sensitivity: tuple[Sensitivity, ...] = ()
    """Ranked by what leaving them in float gains; empty if it was not measured."""
    unit: str = "%"
    factor: float = 100.0
    """How the score is shown; see `deploy.evaluation.metric.Metric`."""

    @property
    def shown(self) -> Metric:
        """How to show the score."""
        return Metric(self.metric, "", self.unit, self.factor)

    @property
    def all_int8(self) -> Figures:
        """The figures with every layer in INT8: what the gains of `sensitivity` are relative to."""
        return self.calibrators[self.calibrator]


def sensitivity_table(report: Report) -> str:
    """The ranked layers as aligned text: what the model gains from each of them alone in float."""
    base, metric = report.all_int8, report.shown
    rows = [
        (
            row.name,
            metric.text(row.figures.score),
            metric.change(row.figures.score - base.score, 2),
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


def _in_float(report: Report, row: Sensitivity) -> bool:
    return set(row.layers) <= set(report.float_layers)


_ROW, _LEFT, _PLOT, _RIGHT, _TOP = 18, 260, 360, 130, 52
"""Pixels: height of a row, widths of names, bars and figures, height of the title."""


def sensitivity_svg(report: Report) -> str:
    """The ranking as a bar chart: points of the score that the model gains from each layer alone in float.

    Bars are dark for what the result leaves in float. A stand-alone SVG document on a white ground.
    """
    base, metric = report.all_int8.score, report.shown
    gains = [abs(metric.factor) * (row.figures.score - base) for row in report.sensitivity]
    low, high = min(0.0, *gains, 0.0), max(0.0, *gains, 0.0)
    scale = _PLOT / ((high - low) or 1.0)
    zero = _LEFT - low * scale
    width, height = _LEFT + _PLOT + _RIGHT, _TOP + _ROW * len(gains) + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
        ' font-family="sans-serif" font-size="12" fill="#222">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="12" y="20" font-size="14">{escape(report.metric)} gained with one layer in float, {"points" if metric.unit == "%" else metric.unit}</text>',
        f'<text x="12" y="38" fill="#666">all in INT8 ({escape(report.calibrator)}): {metric.text(base)} {metric.unit}, fp32: '
        f"{metric.text(report.fp32.score)} {metric.unit}; dark: left in float</text>",
    ]
    for index, (row, gain) in enumerate(zip(report.sensitivity, gains, strict=True)):
        top = _TOP + _ROW * index
        start, length = zero + min(0.0, gain * scale), abs(gain) * scale
        color = "#1f4e79" if _in_float(report, row) else "#9dbfe0"
        parts += [
            f'<text x="{_LEFT - 8}" y="{top + 13}" text-anchor="end">{escape(row.name)}</text>',
            f'<rect x="{start:.1f}" y="{top + 3}" width="{length:.1f}" height="{_ROW - 6}" fill="{color}"/>',
            f'<text x="{_LEFT + _PLOT + 8}" y="{top + 13}">{gain:+.2f}</text>',
        ]
    bottom = _TOP + _ROW * len(gains)
    parts.append(f'<line x1="{zero:.1f}" y1="{_TOP}" x2="{zero:.1f}" y2="{bottom}" stroke="#222"/>')
    return "\n".join([*parts, "</svg>"]) + "\n"
