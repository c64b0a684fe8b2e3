"""Does distillation help? `python benchmarks/seeds.py PRESET [--seeds 0 1 2] [--json FILE] [--field value …]`.

Runs a preset once for each seed, which changes synthetic data, first weights and data order, in folders named after the
seed; existing ones are resumed. Prints the test scores of teacher, baseline and student, their mean and deviation.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: import from the repository root, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import replace

from deploy.errors import GateFailed, UserError, exit_with_one_line
from deploy.files.atomic import write_json
from deploy.measure.machine import describe, summary
from deploy.table import format_table
from distill.run import parse

NETWORKS = ("teacher", "baseline", "student")


def main(argv: Sequence[str]) -> int:
    """Run all seeds, print the table and write it as JSON with a description of the machine."""
    parser = argparse.ArgumentParser(prog="benchmarks/seeds.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("preset")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", type=Path, help="report to write (default: runs/seeds-PRESET.json)")
    options, fields = parser.parse_known_args(argv)
    rows = [_run_seed([options.preset, *fields], seed) for seed in options.seeds]
    machine = describe()
    print(table(options.seeds, rows), summary(machine), sep="\n")
    report = options.json or Path("runs") / f"seeds-{options.preset}.json"
    write_json(report, {"machine": machine, "preset": options.preset, "seeds": options.seeds, "scores": rows})
    return 0


def table(seeds: Sequence[int], rows: Sequence[dict[str, float]]) -> str:
    """Test scores in percent by seed, mean ± sample standard deviation, and the student's gain over the baseline."""
    columns = [[100 * row[name] for row in rows] for name in NETWORKS]
    columns.append([student - baseline for _, baseline, student in zip(*columns, strict=True)])
    header = ("seed", *NETWORKS, "gain")
    lines = [(str(seed), *(f"{column[i]:.2f}" for column in columns)) for i, seed in enumerate(seeds)]
    return format_table(header, [*lines, ("mean ± std", *map(_mean_and_spread, columns))])


def _run_seed(arguments: Sequence[str], seed: int) -> dict[str, float]:
    """Run the preset with one seed and return the test score of each network, by name."""
    from distill.pipeline.pipeline import run  # start-up time: torch is not needed for --help

    config = parse([*arguments, "--seed", str(seed)])
    if not config.baseline:
        raise UserError("--no-baseline: there is nothing to compare the student with")
    config = replace(config, out=config.out.with_name(f"{config.out.name}-seed{seed}"), resume=True)
    try:
        run(config)
    except GateFailed as failure:  # the table is about training; the run's own report covers the export
        print(f"seed {seed}: {failure}", file=sys.stderr)
    report = json.loads((config.out / "report.json").read_text(encoding="utf-8"))
    return {row["name"]: row["score"] for row in report["rows"]}


def _mean_and_spread(values: Sequence[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.2f} ± {spread:.2f}"


if __name__ == "__main__":
    exit_with_one_line(lambda: main(sys.argv[1:]))
