"""The table of `benchmarks/design.py`, and the picture with the Pareto front."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.design_training import Result
from benchmarks.turns import int8_lines
from distill.reporting.figures import require_matplotlib, save


@dataclass(frozen=True)
class Row:
    """A layout with everything that was measured of it."""

    name: str
    parameters: int
    macs: int
    ms: dict[str, float]
    """Milliseconds by backend and precision."""
    fused_layers: int | None
    """Layers as TensorRT-RTX compiles them; None if that is not installed."""
    results: tuple[Result, ...]
    """Trainings, one a seed; none if only the latency was measured."""

    def fastest(self, precision: str) -> float:
        """Milliseconds of the fastest backend in "int8" or "fp32"."""
        return min(ms for form, ms in self.ms.items() if form.endswith(precision))

    @property
    def miou(self) -> float:
        """Mean over the seeds, in percent."""
        return _mean([100 * result.miou for result in self.results])

    @property
    def boundary_f1(self) -> float:
        """Mean over the seeds, in percent."""
        return _mean([100 * result.boundary_f1 for result in self.results])


def front(rows: Sequence[Row]) -> list[Row]:
    """The trained layouts that no other one beats in both INT8 latency and mIoU, the fastest first."""
    best: list[Row] = []
    for row in sorted((row for row in rows if row.results), key=lambda row: (row.fastest("int8"), -row.miou)):
        if not best or row.miou > best[-1].miou:
            best.append(row)
    return best


def markdown(rows: Sequence[Row]) -> str:
    """A Markdown table, the fastest layout first, and where INT8 is slower; layouts on the front are bold."""
    leading = {row.name for row in front(rows)}
    forms = list(rows[0].ms)
    header = ["layout", "params M", "GMAC", *forms, "fused layers", "steps", "val mIoU %", "boundary F1 %"]
    lines = ["| " + " | ".join(header) + " |", "|---" + "|--:" * (len(header) - 1) + "|"]
    for row in sorted(rows, key=lambda row: row.fastest("int8")):
        trained = ["", "", ""]
        if row.results:
            steps = "/".join(sorted({str(result.steps) for result in row.results}))
            trained = [steps, f"{row.miou:.1f}", f"{row.boundary_f1:.1f}"]
        cells = [
            f"**{row.name}**" if row.name in leading else row.name,
            f"{row.parameters / 1e6:.2f}",
            f"{row.macs / 1e9:.2f}",
            *(f"{row.ms[form]:.2f}" for form in forms),
            "" if row.fused_layers is None else str(row.fused_layers),
            *trained,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    notes = [f"\n{note}" for note in int8_lines({row.name: row.ms for row in rows})]
    return "\n".join([*lines, *notes]) + "\n"


def draw(rows: Sequence[Row], path: Path) -> None:
    """Plot mIoU against the INT8 latency of the fastest backend, with the Pareto front, as an SVG.

    Args:
        rows: layouts; those not trained are left out.
        path: file to write.

    Raises:
        UserError: matplotlib is not installed.
    """
    require_matplotlib("benchmarks/design.py")
    from matplotlib.figure import Figure  # optional dependency

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    leading = front(rows)
    axes.plot([row.fastest("int8") for row in leading], [row.miou for row in leading], color="tab:gray")
    for row in (row for row in rows if row.results):
        place = row.fastest("int8"), row.miou
        axes.plot(*place, "o", color="tab:blue" if row in leading else "tab:orange")
        axes.annotate(row.name, place, xytext=(4, 4), textcoords="offset points", fontsize=7)
    axes.set(xlabel="ms in INT8, fastest backend", ylabel="validation mIoU %")
    axes.margins(x=0.2)
    axes.grid(alpha=0.3)
    save(figure, path)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
