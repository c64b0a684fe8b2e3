"""How fast is training, and what slows it? `python benchmarks/training.py PRESET [--steps N] [--field value …]`.

Trains a preset's student for a few steps in each way below, in turns, and compares images a second with an upper bound:
forward and backward pass of one batch in memory. Networks have random weights, which does not change the speed.

    bare            forward and backward pass alone, in the preset's arithmetic and memory format
    bare step       the same with the optimizer's step
    no teacher      the training loop: loading (images are decoded before, as in all epochs but the first), logs
    stored views    the loop, distilling from cached teacher outputs
    teacher online  the loop, with the teacher running in every step
    plain           a plain loop: float32, contiguous, Pillow for every image, the teacher in every step, torch's
                    unfused optimizer

Writes `runs/training-PRESET.json` with a description of the machine.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: import from the repository root, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import statistics
import tempfile
from collections.abc import Sequence

from deploy.errors import UserError, exit_with_one_line
from deploy.files.atomic import write_json
from deploy.measure.machine import describe, summary
from deploy.table import format_table
from distill.run import parse

HEADER = ("way", "images/s", "ms a step", "p10", "p90", "of bare")


def main(argv: Sequence[str]) -> int:
    """Measure, print the table and write the report.

    Args:
        argv: arguments of the command line.

    Returns:
        The exit code, 0.

    Raises:
        UserError: a count below 1.
    """
    parser = argparse.ArgumentParser(
        prog="benchmarks/training.py", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("preset")
    parser.add_argument("--steps", type=int, default=6, help="steps of each way in a round (default 6)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds over all ways (default 3)")
    parser.add_argument("--json", type=Path, help="report to write (default: runs/training-PRESET.json)")
    options, fields = parser.parse_known_args(argv)
    if options.steps < 1 or options.rounds < 1:
        raise UserError("--steps and --rounds must be at least 1")
    from benchmarks.training_ways import measure  # start-up time: torch is not needed for --help

    with tempfile.TemporaryDirectory() as folder:
        own = [f"--out={folder}", "--distill.views=0", f"--distill.cache={folder}/cache"]
        config = parse([options.preset, *fields, *own])
        times = measure(config, options.steps, options.rounds)
    machine = describe()
    print(table(times, config.student_train.batch_size), summary(machine), sep="\n")
    path = options.json or Path("runs") / f"training-{options.preset}.json"
    write_json(path, {"machine": machine, "preset": options.preset, "fields": fields, "seconds": times})
    return 0


def table(times: dict[str, list[float]], batch: int) -> str:
    """Throughput of each way by its median step, percentiles of a step, and the throughput as a share of `bare`.

    Args:
        times: seconds of each step, by way.
        batch: images in a step.
    """
    bare = statistics.median(times["bare"])
    rows = []
    for name, seconds in times.items():
        median, ordered = statistics.median(seconds), sorted(seconds)
        low, high = ordered[len(ordered) // 10], ordered[-1 - len(ordered) // 10]
        rows.append(
            (
                name,
                f"{batch / median:.1f}",
                *(f"{1000 * value:.0f}" for value in (median, low, high)),
                f"{bare / median:.2f}",
            )
        )
    return format_table(HEADER, rows)


if __name__ == "__main__":
    exit_with_one_line(lambda: main(sys.argv[1:]))
