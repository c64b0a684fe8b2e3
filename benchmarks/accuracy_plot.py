"""The picture of `benchmarks/accuracy.py`: mIoU against latency."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from deploy.errors import UserError
from distill.reporting.figures import require_matplotlib, save

if TYPE_CHECKING:
    from benchmarks.accuracy_training import Result


class Point(NamedTuple):
    """A method in the picture."""

    name: str
    ms: float
    miou: float
    """Mean over the seeds in percent."""
    spread: float
    """Sample standard deviation in percent; 0 for one seed."""
    ours: bool


def latencies_of(path: Path) -> dict[str, float]:
    """Milliseconds of each network in INT8 on its faster backend, from the JSON of `benchmarks/peers.py`.

    Raises:
        UserError: the file cannot be read, or is no such JSON.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        return {
            row["name"]: min(ms for form, ms in row["ms"].items() if form.endswith("int8")) for row in rows
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is no JSON of benchmarks/peers.py ({error!r})") from error


def points_of(
    results: "Sequence[Result]", latencies: Mapping[str, float], peers: Mapping[str, object]
) -> list[Point]:
    """One point for each method whose network has a latency.

    Args:
        results: all trainings.
        latencies: milliseconds by network.
        peers: names of the networks that are not ours.
    """
    by_name: dict[str, list[Result]] = {}
    for result in results:
        by_name.setdefault(result.name, []).append(result)
    points = []
    for name, runs in by_name.items():
        arch, scores = runs[0].arch, [100 * run.test_miou for run in runs]
        spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
        if arch in latencies:
            points.append(Point(name, latencies[arch], statistics.fmean(scores), spread, arch not in peers))
    return points


def draw(points: Sequence[Point], path: Path) -> None:
    """Plot the points with their deviations, latency on a logarithmic axis.

    Args:
        points: the methods, at least one.
        path: file to write, .svg or .png.

    Raises:
        UserError: matplotlib is not installed.
    """
    require_matplotlib("benchmarks/accuracy.py")
    from matplotlib.figure import Figure  # optional dependency

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for point in points:
        color, marker = ("C0", "o") if point.ours else ("C7", "s")
        axes.errorbar(point.ms, point.miou, yerr=point.spread, color=color, marker=marker, capsize=3)
        below = " under " in point.name  # at the latency of the same network without a teacher
        place = {"xytext": (6, -12 if below else 5), "textcoords": "offset points", "fontsize": 8}
        axes.annotate(point.name, (point.ms, point.miou), **place)
    axes.set(xscale="log", xlabel="ms of one image in INT8", ylabel="test mIoU %")
    for axis in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        axis("{x:g}")
    axes.grid(alpha=0.3, which="both")
    axes.margins(y=0.15)
    axes.set_xlim(min(p.ms for p in points) / 1.3, max(p.ms for p in points) * 2)
    save(figure, path)
