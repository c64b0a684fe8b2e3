"""Results of several trainings with several seeds, as a table and as a picture."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import UserError
from deploy.table import format_table
from distill.reporting.figures import require_matplotlib, save

HEADER = ("method", "steps", "teacher s", "test %", "gain", "p", "teacher %", "loss")


@dataclass(frozen=True)
class Result:
    """One training."""

    name: str
    loss: str
    seed: int
    steps: int
    share: float
    """Seconds of the budget spent on the teacher's inference before the first step."""
    score: float
    """Score on the test split, 0..1."""
    curve: Sequence[tuple[float, float]]
    """Seconds spent and score on the validation split, at each evaluation."""


def table(results: Sequence[Result], baseline: str, teacher: float) -> str:
    """Mean ± sample standard deviation over the seeds, best method first, and the gain over the baseline.

    Gain and p are over the seeds that a method shares with the baseline; p is that of a two-sided paired t-test, which
    has little power with few seeds.

    Args:
        results: all trainings.
        baseline: name of the method that gains are measured against.
        teacher: score of the teacher on the test split, 0..1.
    """
    return format_table(HEADER, _rows(results, baseline, teacher))


def to_markdown(results: Sequence[Result], baseline: str, teacher: float) -> str:
    """The same as a Markdown table."""
    lines = ["| " + " | ".join(HEADER) + " |", "|---" + "|--:" * (len(HEADER) - 2) + "|---|"]
    lines += ["| " + " | ".join(row) + " |" for row in _rows(results, baseline, teacher)]
    return "\n".join(lines) + "\n"


def draw(results: Sequence[Result], teacher: float, path: Path) -> None:
    """Plot the validation score against seconds, one line per method (mean over its seeds), as a PNG.

    Args:
        results: all trainings.
        teacher: score of the teacher on the test split, 0..1.
        path: file to write.

    Raises:
        UserError: matplotlib is not installed.
    """
    require_matplotlib("benchmarks/distillation.py")
    from matplotlib.figure import Figure  # optional dependency

    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    for number, (name, runs) in enumerate(_by_method(results).items()):
        seconds = [
            statistics.fmean(point) for point in zip(*([s for s, _ in r.curve] for r in runs), strict=False)
        ]
        scores = [
            100 * statistics.fmean(point)
            for point in zip(*([m for _, m in r.curve] for r in runs), strict=False)
        ]
        style = ("-", "--", ":")[number // 10 % 3]
        axes.plot(
            seconds, scores, style, label=f"{name} ({len(runs)})", linewidth=2.5 if number == 0 else 1.5
        )
    axes.set(xlabel="seconds, the teacher's inference included", ylabel="validation score %")
    axes.set_title(f"teacher: {100 * teacher:.1f} % on the test split; (n) = seeds")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    save(figure, path)


def _rows(results: Sequence[Result], baseline: str, teacher: float) -> list[tuple[str, ...]]:
    methods = _by_method(results)
    plain = {run.seed: run.score for run in methods.get(baseline, [])}
    rows = []
    for name, runs in sorted(methods.items(), key=lambda item: -statistics.fmean(r.score for r in item[1])):
        gains = [100 * (run.score - plain[run.seed]) for run in runs if run.seed in plain]
        rows.append(
            (
                name,
                str(runs[0].steps),
                f"{runs[0].share:.0f}",
                mean_and_spread([100 * run.score for run in runs]),
                "" if name == baseline or not gains else f"{statistics.fmean(gains):+.2f}",
                "" if name == baseline else p_value(gains),
                f"{100 * teacher:.2f}",
                "" if name == baseline else runs[0].loss,
            )
        )
    return rows


def mean_and_spread(values: Sequence[float]) -> str:
    """Mean ± sample standard deviation; a single value is shown without a deviation."""
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f}"


def p_value(differences: Sequence[float]) -> str:
    """The p-value of a two-sided paired t-test.

    Args:
        differences: differences of the pairs; the null hypothesis is that their mean is 0.

    Returns:
        Three decimals; empty for fewer than two pairs or if all differences are equal.

    Raises:
        UserError: scipy is not installed.
    """
    if len(differences) < 2 or len(set(differences)) == 1:
        return ""
    try:  # optional dependency
        from scipy.stats import ttest_1samp
    except ImportError as error:
        raise UserError("the paired test needs scipy: pip install '.[bench]'") from error
    _, p = ttest_1samp(differences, 0.0)
    return f"{p:.3f}"


def _by_method(results: Sequence[Result]) -> dict[str, list[Result]]:
    methods: dict[str, list[Result]] = {}
    for result in results:
        methods.setdefault(result.name, []).append(result)
    return methods
