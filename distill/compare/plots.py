"""The plots of a comparison, as PNG."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deploy.analysis.curves import STEPS, average_precision, roc_auc
from distill.compare.measured import Measured
from distill.reporting.figures import panels, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BARS = 50


def write_plots(out: Path, measured: Sequence[Measured], positive: int) -> list[Path]:
    """Draw the plots of a comparison.

    Args:
        out: folder for histograms.png, thresholds.png, pr_roc.png and calibration.png.
        measured: the results of each model.
        positive: the class of the curves.

    Returns:
        The paths of the plots.
    """
    name = measured[0].classes[positive].name
    figures = {
        "histograms.png": histograms(measured, name),
        "thresholds.png": thresholds(measured, name),
        "pr_roc.png": _pr_roc(measured, name),
        "calibration.png": _calibration(measured),
    }
    for file, figure in figures.items():
        save(figure, out / file)
    return [out / file for file in figures]


def histograms(measured: Sequence[Measured], name: str) -> "Figure":
    """Pixels of the class, and of all others, by its probability; p = 1 belongs to the last bar."""
    figure, all_axes = panels(len(measured))
    edges = np.linspace(0, 1, _BARS + 1)
    for axes, one in zip(all_axes, measured, strict=True):
        counted = one.findings.histogram
        for counts, label in ((counted.negative, f"not {name}"), (counted.positive, name)):
            bars = counts[:STEPS].reshape(_BARS, -1).sum(axis=1)
            bars[-1] += counts[STEPS]
            axes.stairs(bars, edges, fill=True, alpha=0.5, label=label)
        axes.set_yscale("symlog")
        axes.set(title=one.name, xlabel=f"probability of {name}", ylabel="pixels")
        axes.legend()
    return figure


def thresholds(measured: Sequence[Measured], name: str) -> "Figure":
    """Precision, recall, F1 and IoU of the class by threshold, with the best F1."""
    figure, all_axes = panels(len(measured))
    for axes, one in zip(all_axes, measured, strict=True):
        curve, best = one.curve, one.best
        for values, label in (
            (curve.precision, "precision"),
            (curve.recall, "recall"),
            (curve.f1, "F1"),
            (curve.iou, "IoU"),
        ):
            axes.plot(curve.thresholds, values, label=label)
        axes.axvline(best.threshold, color="gray", linestyle=":")
        axes.set(title=f"{one.name}: F1 {best.f1:.3f} at {best.threshold:.3f}", ylim=(0, 1.02))
        axes.set(xlabel=f"threshold of {name}")
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def _pr_roc(measured: Sequence[Measured], name: str) -> "Figure":
    figure, (left, right) = panels(2)
    for one in measured:
        curve, ap, auc = one.curve, average_precision(one.curve), roc_auc(one.curve)
        left.plot(
            curve.recall, curve.precision, drawstyle="steps-post", label=f"{one.name}: AP {_figure(ap)}"
        )
        rate, recall = np.append(curve.false_positive_rate, 0), np.append(curve.recall, 0)
        right.plot(rate, recall, label=f"{one.name}: AUC {_figure(auc)}")
    left.set(title=f"{name} against the rest", xlabel="recall", ylabel="precision", ylim=(0, 1.02))
    right.set(title="ROC", xlabel="false positive rate", ylabel="recall", ylim=(0, 1.02))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def _calibration(measured: Sequence[Measured]) -> "Figure":
    """Accuracy by confidence: of the model unchanged, and with the temperature fitted on `val`."""
    figure, all_axes = panels(len(measured))
    for axes, one in zip(all_axes, measured, strict=True):
        forms = [("unchanged", one.findings.reliability)]
        if one.findings.rescaled:
            forms.append((f"temperature {one.temperature:.2f}", one.findings.rescaled))
        axes.plot([0, 1], [0, 1], color="gray", linestyle=":")
        for label, reliability in forms:
            confidence, accuracy = reliability.curve()
            known = ~np.isnan(confidence)
            axes.plot(
                confidence[known], accuracy[known], "o-", label=f"{label}: ECE {_figure(reliability.ece())}"
            )
        axes.set(title=one.name, xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
