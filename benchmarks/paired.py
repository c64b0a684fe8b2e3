"""Scores of several methods with the same seeds: stored one by one, and shown side by side."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.leaderboard import mean_and_spread, p_value
from deploy.files.atomic import write_json
from deploy.measure.machine import describe, summary
from deploy.table import format_table

HEADER = ("method", "test % by seed", "mean", "gain", "p")
Scores = Mapping[str, Mapping[int, float]]
"""In 0..1, by seed, by method."""


def score_file(folder: Path, method: str, seed: int) -> Path:
    """The file of a method's score with a seed, in the folder of a benchmark."""
    return folder / f"seed{seed}" / f"{slug(method)}.json"


def slug(method: str) -> str:
    """A file name for a method."""
    return method.replace(", ", "-").replace(" ", "-")


def stored(folder: Path, methods: Sequence[str], seeds: Sequence[int]) -> Scores:
    """The scores that are there."""
    paths = {method: {seed: score_file(folder, method, seed) for seed in seeds} for method in methods}
    return {
        method: {
            seed: json.loads(path.read_text(encoding="utf-8"))["score"]
            for seed, path in by_seed.items()
            if path.exists()
        }
        for method, by_seed in paths.items()
    }


def report(path: Path, scores: Scores, baseline: str, command: Sequence[str]) -> None:
    """Print the table, and write the scores as JSON with the command and a description of the machine."""
    machine = describe()
    print(paired_table(scores, baseline), summary(machine), sep="\n", flush=True)
    write_json(path, {"machine": machine, "command": list(command), "scores": scores})


def paired_table(scores: Scores, baseline: str) -> str:
    """Each method's scores in percent, and its gain over the baseline on the seeds that both have.

    p is that of a two-sided paired t-test, which has little power with few seeds.

    Args:
        scores: methods without any are left out.
        baseline: the method that gains are measured against.
    """
    plain, rows = scores.get(baseline, {}), []
    for name, by_seed in scores.items():
        if not by_seed:
            continue
        gains = [100 * (score - plain[seed]) for seed, score in by_seed.items() if seed in plain]
        compared = name != baseline and bool(gains)
        rows.append(
            (
                name,
                ", ".join(f"{100 * score:.2f}" for score in by_seed.values()),
                mean_and_spread([100 * score for score in by_seed.values()]),
                f"{statistics.fmean(gains):+.2f}" if compared else "",
                p_value(gains) if compared else "",
            )
        )
    return format_table(HEADER, rows)
