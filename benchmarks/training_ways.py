"""The ways of training that `benchmarks/training.py` times, step by step and in turns."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.plain_training import fixed_teacher, plain_steps
from benchmarks.stepping import Stepper
from distill.config import RunConfig
from distill.distillation.build import build_distillation
from distill.pipeline.networks import new_network
from distill.pipeline.prepare import prepare
from distill.pipeline.stages import training_stage
from distill.run_context import RunContext
from distill.training.loop import train

WARM = 3
"""Steps before the measured ones."""
VIEWS = 1
"""Cached views of each image in `stored views`; their number does not change the speed."""


def measure(config: RunConfig, steps: int, rounds: int) -> dict[str, list[float]]:
    """Time single steps of all ways in turns.

    Args:
        config: the run.
        steps: measured steps of a way in a round.
        rounds: rounds over all ways.

    Returns:
        Seconds of each step, by way.
    """
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


def bare_steps(context: RunContext, steps: int, optimize: bool) -> list[float]:
    """Seconds of forward and backward passes of one batch with all losses, without data loading."""
    context.accelerator.free_memory()
    config, stage = context.config, training_stage(context, "bare", context.config.student)
    network = new_network(config, config.student, context.splits, context.task)
    training, accelerator = config.student_train, context.accelerator
    stepper = Stepper(network, stage, training, accelerator, loading=False, optimize=optimize)
    return [stepper.step() for _ in range(WARM + steps)][WARM:]


def loop_steps(context: RunContext, steps: int, teacher: bool = True, views: int = 0) -> list[float]:
    """Run the training loop and read the seconds of its steps from its log.

    Args:
        context: the run.
        steps: measured steps, after `WARM` that are not counted.
        teacher: distill from a teacher.
        views: cached views of each image; 0 runs the teacher in every step.
    """
    config = context.config
    config = replace(config, distill=replace(config.distill, views=views))
    context = context.with_config(config)
    with tempfile.TemporaryDirectory(dir=config.out) as folder:
        stage = training_stage(context, "loop", config.student, views, distills=teacher)
        stage = replace(stage, folder=Path(folder), evaluate=None)
        stage.view.preload()
        network = new_network(config, config.student, context.splits, context.task)
        distillation = None
        if teacher:
            distillation = build_distillation(fixed_teacher(context), network, stage, context)
        training = replace(config.student_train, steps=WARM + steps, warmup=0, eval_every=0, log_every=1)
        train(network, stage, training, context.accelerator, distillation=distillation)
        return logged_steps(Path(folder), training.batch_size)


def logged_steps(folder: Path, batch: int) -> list[float]:
    """Seconds of each step after the first `WARM`, from the log of a training that logged every step."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [batch / line["images_per_s"] for line in lines if line["step"] > WARM]
