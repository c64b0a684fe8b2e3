"""Which distillation is best at equal cost? `python benchmarks/distillation.py PRESET --seconds S [--field value …]`.

Trains the preset's student by every method (and without a teacher) from one configuration, for as many steps as fit
into the same seconds, or with `--steps` for equally many. With `--screen` all methods are first trained half as long
with the first seed, and only the best ones by validation score go on to all seeds. A method's budget includes its own
slower steps and the teacher's inference, whether that runs in every step or once for all cached views. The teacher is
trained once, and a second one from the next seed for the method of two teachers; their training is not counted.

To make seconds comparable on a busy machine, the steps of all methods are first timed in turns (`costs.json`); each
method then gets the number of steps that its budget allows at that cost. The number of steps is therefore fixed, and
the same command resumes the benchmark, run by run; two processes started side by side share the work. Writes
`leaderboard.json`, `.md` and `.png` (and `screening.*`) into the folder of the benchmark.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: import from the repository root, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks.distillation_methods import BASELINE, METHODS, SECOND, TWO, method
from deploy.errors import UserError, exit_with_one_line
from deploy.files.lock import acquire
from deploy.tasks.registry import task_named
from distill.config import RunConfig
from distill.run import parse

if TYPE_CHECKING:
    from benchmarks.distillation_bench import Bench, Budget
    from benchmarks.distillation_costs import Cost
    from benchmarks.leaderboard import Result

FINALISTS = 5
"""Methods that a screening lets through."""


def main(argv: Sequence[str]) -> int:
    """Time, train and compare; print the table and write the reports.

    Args:
        argv: arguments of the command line.

    Returns:
        The exit code, 0.
    """
    parser = argparse.ArgumentParser(
        prog="benchmarks/distillation.py", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("preset")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--seconds", type=float, default=120.0, help="budget of each training (default 120)")
    budget.add_argument("--steps", type=int, help="steps of each training, instead of --seconds")
    parser.add_argument(
        "--screen",
        action="store_true",
        help=f"all methods with one seed and half the steps, the best {FINALISTS} with all seeds",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--methods",
        nargs="+",
        help=f"names, or loss expressions such as 'kl(t=4)'; all by default, {TWO!r} where teachers are trained here",
    )
    parser.add_argument(
        "--folder", type=Path, help="folder of the benchmark (default: runs/distillation-PRESET)"
    )
    options, fields = parser.parse_known_args(argv)
    folder = options.folder or Path("runs") / f"distillation-{options.preset}"
    config = parse([options.preset, *fields, "--out", str(folder), "--resume"])
    from benchmarks.distillation_bench import Budget  # start-up time: torch

    own = config.builds_teacher and config.teacher_train.steps
    methods = options.methods or [name for name in METHODS if name != TWO or own]
    if TWO in methods and not own:
        raise UserError(f"{TWO}: needs a teacher that is trained here; leave it out of --methods")
    compare(config, methods, options.seeds, Budget(options.seconds, options.steps), options.screen)
    return 0


def compare(
    config: RunConfig, methods: Sequence[str], seeds: Sequence[int], budget: "Budget", screen: bool = False
) -> None:
    """Run the trainings that have no result yet, then write the reports over all results.

    Args:
        config: the preset's configuration; its `out` is the folder of the benchmark.
        methods: names of `METHODS`, or loss expressions.
        seeds: seeds of the trainings, each with its own first weights and data order.
        budget: of each training.
        screen: let only the best methods of a first, shorter training go on to all seeds.

    Raises:
        UserError: the budget is too small for a method, or differs from that of the results stored; a method is no
            valid configuration; or another process has not ended its part of the screening.
    """
    # start-up time: torch is not needed for --help
    from benchmarks.distillation_bench import Bench, check_method
    from distill.pipeline.prepare import prepare
    from distill.pipeline.stages import the_teacher, train_network

    context = prepare(config)
    config = context.config
    runs = {BASELINE: replace(config, distill=replace(config.distill, weight=0.0, start="own"))}
    runs |= {name: method(name, config) for name in methods}
    for name, run in runs.items():  # the second teacher is not there yet
        check_method(run if name != TWO else method("KL", config), context)
    teacher = the_teacher(context)
    if TWO in runs:
        other = context.with_config(replace(config, seed=config.seed + 1))
        train_network(other, SECOND, config.teacher, config.teacher_train)
    bench = Bench(context, teacher, budget)
    costs = bench.costs(runs)
    if screen:
        runs = _screened(replace(bench, name="screening", part=0.5), runs, seeds[0], costs)
    _train_all(bench, runs, seeds, costs)
    bench.report(runs, seeds, BASELINE)


def _screened(
    bench: "Bench", runs: dict[str, RunConfig], seed: int, costs: "dict[str, Cost]"
) -> dict[str, RunConfig]:
    """The baseline and the best methods by their highest validation score, on whose weights a training ends."""
    found = _train_all(bench, runs, [seed], costs)
    if missing := ", ".join(name for name in runs if name not in found):
        raise UserError(
            f"--screen: another process is training {missing}; start this command again when it has ended"
        )
    bench.report(runs, [seed], BASELINE)
    best = sorted(
        (name for name in runs if name != BASELINE),
        key=lambda name: -max(score for _, score in found[name].curve),
    )
    print(f"go on to all seeds: {', '.join(best[:FINALISTS])}", flush=True)
    return {name: runs[name] for name in (BASELINE, *best[:FINALISTS])}


def _train_all(
    bench: "Bench", runs: dict[str, RunConfig], seeds: Sequence[int], costs: "dict[str, Cost]"
) -> "dict[str, Result]":
    """Train what has no result yet; each method's result with the last seed, unless another process trains it."""
    found = dict[str, "Result"]()
    metric = task_named(bench.context.splits.task).metric
    for seed in seeds:
        for name, run in runs.items():
            folder = bench.folder_of(name, seed)
            with claimed(folder) as mine:
                if not mine:
                    print(f"{name}, seed {seed}: another process is training it", flush=True)
                    continue
                found[name] = result = bench.result(name, run, seed, costs[name])
            scored = f"test {metric.name} {metric.text(result.score)} {metric.unit}"
            print(f"{name}, seed {seed}: {result.steps} steps, {scored}", flush=True)
    return found


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Lock a folder until the block ends.

    Args:
        folder: folder of one training; it is made if it is missing.

    Yields:
        True if this process holds the lock, False if another one does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w", encoding="utf-8") as file:
        yield acquire(file.fileno())


if __name__ == "__main__":
    exit_with_one_line(lambda: main(sys.argv[1:]))
