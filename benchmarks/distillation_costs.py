"""What each method of `benchmarks/distillation.py` costs on this machine: seconds of a step and of the teacher."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.distillation_methods import PLAIN
from benchmarks.distillation_students import StudentFactory
from benchmarks.stepping import Stepper
from distill.config import RunConfig
from distill.data.loader import train_batches
from distill.data.readers import training_images
from distill.data.view import View
from distill.distillation.teacher_cache import CHUNK_ROWS
from distill.distillation.teachers import online_teacher
from distill.pipeline.stages import training_stage
from distill.training.step_module import normalized

WARM, TURNS = 2, 15
"""Turns of the timing: warm-up turns, which are not counted, and measured turns."""
VIEW = "the teacher, a view"


@dataclass(frozen=True)
class Cost:
    """What a method costs on this machine."""

    step: float
    """Seconds of a training step, including data loading and, if the teacher is online, its inference."""
    share: float
    """Seconds of the teacher's inference for all cached views; 0 without a cache."""


def measure_costs(
    students: StudentFactory, runs: Mapping[str, RunConfig], reference_step: float | None
) -> dict[str, Cost]:
    """Time a training step of each run, and the teacher's inference on a view.

    All runs take turns with one network, because two networks of the same architecture can differ by a tenth in speed
    with their place in memory. Each time is compared with the first run's in the same turn, so that other load on the
    machine affects all runs alike. Images are decoded beforehand, as they are in all epochs but the first.

    Args:
        students: prepares the students.
        runs: configurations by method; the first one is the reference.
        reference_step: the reference's seconds of a step where they are known from an earlier call, so that methods
            added later are comparable; None to measure them.

    Returns:
        The cost of each run.
    """
    accelerator = students.context.accelerator
    network, first, _ = students.prepare(next(iter(runs.values())), "timing", seed=0)
    first.view.preload()
    clocks: dict[str, Callable[[], float]] = {}
    for name, run in runs.items():
        _, stage, distillation = students.prepare(run, "timing", seed=0, plain=name == PLAIN)
        stage.view.preload(first.view)
        clocks[name] = Stepper(network, stage, run.student_train, accelerator, distillation).step
    clocks[VIEW] = _view_clock(students, first.view)
    turns = [{name: clock() for name, clock in clocks.items()} for _ in range(WARM + TURNS)][WARM:]
    reference = next(iter(clocks))
    reference_step = reference_step or statistics.median(turn[reference] for turn in turns)
    seconds = {
        name: reference_step * statistics.median(turn[name] / turn[reference] for turn in turns)
        for name in clocks
    }
    images = len(training_images(students.context.splits).train)
    views = {name: run.distill.views if run.distill.weight else 0 for name, run in runs.items()}
    return {name: Cost(seconds[name], share=seconds[VIEW] * views[name] * images) for name in runs}


def _view_clock(students: StudentFactory, view: View) -> Callable[[], float]:
    """A function that times the making of a view and the teacher's inference on it, as filling the cache does both."""
    context = students.context
    stage = training_stage(context, "timing", context.config.teacher)
    stage.view.preload(view)
    teach = online_teacher([students.teacher.network], context.accelerator)
    batches = train_batches(stage.view, CHUNK_ROWS, 0, 0, WARM + TURNS)

    def clock() -> float:
        began = time.perf_counter()
        batch = next(batches).to(context.accelerator.device)
        teach(batch, normalized(batch, stage, channels_last=True))
        return (time.perf_counter() - began) / CHUNK_ROWS

    return clock
