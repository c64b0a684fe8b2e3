"""Layouts of `benchmarks/design.py`, trained for equal CPU time under one teacher, and their validation scores."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from benchmarks.design_costs import step_seconds
from benchmarks.design_layouts import Layout
from benchmarks.stepping import Stepper
from deploy.errors import UserError
from deploy.files.atomic import write_json
from distill.distillation.build import build_distillation
from distill.pipeline.stages import training_stage
from distill.run_context import RunContext
from distill.training.loop import train
from distill.training.stage import Stage
from distill.training.step_module import Distillation


@dataclass(frozen=True)
class Result:
    """A trained layout."""

    name: str
    seed: int
    steps: int
    cpu_seconds: float
    """CPU time of the training, with one validation at its end."""
    miou: float
    boundary_f1: float


class Student(NamedTuple):
    """A layout before its first step."""

    network: nn.Module
    stage: Stage
    distillation: Distillation


@dataclass(frozen=True)
class Trainer:
    """What the trainings of all layouts share."""

    context: RunContext
    teacher: nn.Module
    seconds: float
    """CPU seconds of each training."""

    def step_seconds(self, layouts: Sequence[Layout]) -> dict[str, float]:
        """CPU seconds of a step by layout, read from `steps.json`; layouts that it lacks are measured and added."""
        path = self.context.config.out / "steps.json"
        known: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if missing := [layout for layout in layouts if layout.name not in known]:
            training, accelerator = self.context.config.student_train, self.context.accelerator
            steppers = {}
            for layout in missing:
                network, stage, distillation = self._prepare(layout, 0)
                steppers[layout.name] = Stepper(network, stage, training, accelerator, distillation)
            known |= step_seconds(steppers)
            write_json(path, known)
        return known

    def result(self, layout: Layout, step: float, seed: int) -> Result:
        """Train a layout and score it, or read the result of an earlier call.

        Args:
            layout: the layout.
            step: CPU seconds of its training steps.
            seed: seed of its first weights and of the data order.

        Raises:
            UserError: the budget is below the cost of one step, or the earlier result has another number of steps.
        """
        folder = self.context.config.out / "layouts" / f"{layout.slug}-{seed}"
        path, steps = folder / "result.json", int(self.seconds / step)
        if path.exists():
            result = Result(**json.loads(path.read_text(encoding="utf-8")))
            if result.steps != steps:
                raise UserError(
                    f"{path}: has {result.steps} steps, but the budget allows {steps}; use another --out"
                )
            return result
        if steps < 1:
            raise UserError(f"{layout.name}: a step takes {step:.1f} s; raise --minutes")
        seconds = self._train(layout, folder, steps, seed)
        scores = _last_scores(folder / "metrics.jsonl")
        result = Result(layout.name, seed, steps, seconds, scores["val_miou"], scores["val_boundary_f1"])
        write_json(path, asdict(result))
        return result

    def _train(self, layout: Layout, folder: Path, steps: int, seed: int) -> float:
        network, stage, distillation = self._prepare(layout, seed)
        stage = replace(stage, folder=folder)
        options = self.context.config.student_train
        warmup = min(options.warmup, steps // 10)
        training = replace(
            options, steps=steps, warmup=warmup, eval_every=0, log_every=50, checkpoint_every=steps
        )
        began = time.process_time()
        train(network, stage, training, self.context.accelerator, distillation=distillation)
        return time.process_time() - began

    def _prepare(self, layout: Layout, seed: int) -> Student:
        """A new student; the augmented views and the teacher's cached outputs are the same for all layouts."""
        context, config = self.context, self.context.config
        torch.manual_seed(seed)
        splits = context.splits
        network = layout.network(len(splits.channels), context.task.outputs, config.student.dropout)
        stage = training_stage(context, layout.name, config.student, config.distill.views, distills=True)
        stage = replace(stage, seed=seed, metadata={})
        return Student(network, stage, build_distillation(self.teacher, network, stage, context))


def _last_scores(log: Path) -> dict[str, float]:
    lines = (json.loads(line) for line in reversed(log.read_text(encoding="utf-8").splitlines()))
    return next(line for line in lines if "val_miou" in line)
