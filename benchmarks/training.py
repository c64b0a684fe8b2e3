"""How fast is training, and what slows it? `python benchmarks/training.py PRESET [--steps N] [--field value …]`.

Trains a preset's student for a few steps in every way below, in turns, and prints images a second beside the floor:
forward and backward pass of one batch that lies in memory. Networks have random weights, which changes no speed.

    bare            forward and backward pass alone, in the preset's arithmetic and memory format
    bare step       and the optimizer's step
    no teacher      the training loop: loading (images are decoded before, as in all epochs but the first), logs
    stored views    the loop, distilling from outputs of the teacher that were stored before
    teacher online  the loop, the teacher running in every step
    plain           what one writes first: float32, contiguous, Pillow for every image, the teacher in every step,
                    the optimizer as torch gives it

Writes `runs/training-PRESET.json` with a description of the machine.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: import from the repository root, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks.machine import describe, summary
from benchmarks.plain_training import plain_steps
from benchmarks.stepping import Stepper
from deploy.errors import UserError, exit_with_one_line
from deploy.files.atomic import write_json
from deploy.table import format_table
from distill.run import parse

if TYPE_CHECKING:
    from distill.config import RunConfig
    from distill.pipeline.stages import RunContext

WARM = 3
VIEWS = 1
"""Fixed views an image in `stored views`: how many does not change its speed."""
HEADER = ("way", "images/s", "ms a step", "p10", "p90", "of bare")


def main(argv: Sequence[str]) -> int:
    """Measure, print the table and write the report."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/training.py", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("preset")
    parser.add_argument("--steps", type=int, default=6, help="steps of a way in a round (default 6)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds over all ways (default 3)")
    parser.add_argument("--json", type=Path, help="report to write (default: runs/training-PRESET.json)")
    options, fields = parser.parse_known_args(argv)
    if options.steps < 1 or options.rounds < 1:
        raise UserError("--steps and --rounds must be at least 1")
    with tempfile.TemporaryDirectory() as folder:
        config = parse(
            [
                options.preset,
                *fields,
                "--out",
                folder,
                "--distill.views",
                "0",
                "--distill.cache",
                f"{folder}/cache",
            ]
        )
        times = measure(config, options.steps, options.rounds)
    machine = describe()
    print(table(times, config.student_train.batch_size), summary(machine), sep="\n")
    path = options.json or Path("runs") / f"training-{options.preset}.json"
    write_json(path, {"machine": machine, "preset": options.preset, "fields": fields, "seconds": times})
    return 0


def table(times: dict[str, list[float]], batch: int) -> str:
    """The ways with their throughput (median step), the spread of a step, and the throughput against `bare`."""
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


def measure(config: "RunConfig", steps: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of single steps, by way, taken in turns."""
    from distill.pipeline.stages import prepare

    context = prepare(config)
    ways: dict[str, Callable[[], list[float]]] = {
        "bare": lambda: bare_steps(context, steps, optimize=False),
        "bare step": lambda: bare_steps(context, steps, optimize=True),
        "no teacher": lambda: loop_steps(context, steps, teacher=False),
        "stored views": lambda: loop_steps(context, steps, views=VIEWS),
        "teacher online": lambda: loop_steps(context, steps),
        "plain": lambda: plain_steps(context, WARM + steps)[WARM:],
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            times[name] += way()
    return times


def bare_steps(context: "RunContext", steps: int, optimize: bool) -> list[float]:
    """Forward and backward passes of one batch, all its losses included, without loading anything."""
    from distill.pipeline.stages import new_network, training_stage

    context.accelerator.free_memory()
    config, stage = context.config, training_stage(context, "bare", context.config.student)
    network = new_network(config, context.splits, config.student)
    training, accelerator = config.student_train, context.accelerator
    stepper = Stepper(network, stage, training, accelerator, loading=False, optimize=optimize)
    return [stepper.step() for _ in range(WARM + steps)][WARM:]


def loop_steps(context: "RunContext", steps: int, teacher: bool = True, views: int = 0) -> list[float]:
    """Steps of the training loop as `train` logs them."""
    from distill.distillation.build import build_distillation
    from distill.pipeline.stages import new_network, training_stage
    from distill.training.loop import train

    config = context.config
    config = replace(config, distill=replace(config.distill, views=views))
    with tempfile.TemporaryDirectory(dir=config.out) as folder:
        stage = training_stage(context, "loop", config.student, views=views)
        stage = replace(stage, folder=Path(folder), evaluate=None)
        stage.view.preload()
        network = new_network(config, context.splits, config.student)
        lesson = None
        if teacher:
            mentor = fixed_teacher(context)
            lesson = build_distillation(
                mentor, network, stage, config, context.accelerator, (context.splits, context.stats)
            )
        training = replace(config.student_train, steps=WARM + steps, warmup=0, eval_every=0, log_every=1)
        train(network, stage, training, context.accelerator, distillation=lesson)
        return logged_steps(Path(folder), training.batch_size)


def logged_steps(folder: Path, batch: int) -> list[float]:
    """Seconds of each step after the first `WARM` of a training that logged every step."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [batch / line["images_per_s"] for line in lines if line["step"] > WARM]


def fixed_teacher(context: "RunContext"):  # noqa: ANN201 (torch is imported late)
    """The preset's teacher with random weights, the same in every call, so that what is stored stays its own."""
    import torch

    from distill.pipeline.stages import new_network

    torch.manual_seed(0)
    return new_network(
        context.config, context.splits, replace(context.config.teacher, pretrained=False)
    ).eval()


if __name__ == "__main__":
    exit_with_one_line(lambda: main(sys.argv[1:]))
