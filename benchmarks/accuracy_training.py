"""The trainings of `benchmarks/accuracy.py`: what a step costs, how many fit the budget, and one training scored."""

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from benchmarks.networks import network_of
from benchmarks.stepping import Stepper
from deploy.errors import UserError
from deploy.files.atomic import write_json
from distill.config import ModelConfig
from distill.distillation.build import build_distillation, init_student
from distill.pipeline.pipeline import test_scores
from distill.pipeline.stages import training_stage, validate
from distill.run_context import RunContext
from distill.training.loop import train
from distill.training.stage import Stage
from distill.training.step_module import Distillation

WARM, TURNS = 2, 9
"""Turns of the timing: warm-up turns, which are not counted, and measured turns."""


@dataclass(frozen=True)
class Method:
    """A network, and the teacher that trains it, if any."""

    arch: str
    """A student's name, or a peer's (see `benchmarks.peer_networks`)."""
    teacher: str = ""
    """Network that is trained first, from scratch and within the same budget; empty = none."""
    share: float = 0.0
    """Fraction of the budget that the teacher's training takes."""

    @property
    def name(self) -> str:
        """Name of the method in tables and files."""
        return f"{self.arch} under {self.teacher}" if self.teacher else self.arch

    @property
    def own_teacher(self) -> "Method":
        """The training of its teacher."""
        return Method(self.teacher)


@dataclass(frozen=True)
class Result:
    """One training; scores are fractions in 0..1."""

    name: str
    arch: str
    seed: int
    budget: float
    """CPU seconds that the training was given, the teacher's share included."""
    steps: int
    step_seconds: float
    """CPU seconds of a step as timed before, in turns with the other networks; the number of steps follows from it."""
    cpu_seconds: float
    """CPU seconds that the training took, the teacher's included."""
    val_miou: float
    test_miou: float
    test_boundary_f1: float
    details: Mapping[str, float | None]
    """Further scores on the test split: pixel accuracy, and the IoU of each class."""
    teacher: Mapping[str, float | str]
    """Name, steps, step_seconds, cpu_seconds and test_miou of the teacher, its share of the budget and the distillation
    loss, weight, schedule and start; empty without one."""


@dataclass(frozen=True)
class Bench:
    """Trains each method for the same CPU time on one thread."""

    context: RunContext
    seconds: float
    """Budget of each training in CPU seconds, the teacher's share included."""

    @property
    def folder(self) -> Path:
        """The folder of the benchmark."""
        return self.context.config.out

    @cached_property
    def images(self) -> Stage:
        """A stage whose view has all training images in memory, for others to share."""
        stage = training_stage(self.context, "images", self.context.config.student)
        stage.view.preload()
        return stage

    def path_of(self, method: Method, seed: int) -> Path:
        """The file of one result."""
        return self.folder / f"{slug(method.name)}-{seed}.json"

    def result(self, method: Method, seed: int, costs: Mapping[str, float]) -> Result:
        """Train a method, score it and write its result, or read that of an earlier call.

        Args:
            method: what to train.
            seed: seed of the first weights and of the data order.
            costs: CPU seconds of a step by method's name, the teachers' included.

        Raises:
            UserError: the budget is below the cost of a step, or results in the folder have another one, or those of
                the method another distillation.
        """
        path, stored = self.path_of(method, seed), self.stored()
        for one in stored:
            self._check(one, method)
        done = next((one for one in stored if (one.name, one.seed) == (method.name, seed)), None)
        if done is not None:
            return done
        steps, taught = steps_within(self.seconds, method, costs)
        teacher, spent, about = None, 0.0, {}
        if method.teacher:
            folder = f"{method.name} teacher {seed}"
            teacher, spent = self._train(method.own_teacher, seed, taught, None, folder)
            about = self._about(method, teacher, taught, costs) | {"cpu_seconds": spent}
        network, own = self._train(method, seed, steps, teacher, f"{method.name} {seed}")
        miou, details = test_scores(self.context, network)
        boundary = float(details.pop("boundary F1", 0.0) or 0.0)
        val = validate(self.context, network)["miou"]
        timing = (self.seconds, steps, costs[method.name], spent + own)
        result = Result(method.name, method.arch, seed, *timing, val, miou, boundary, details, about)
        write_json(path, result)
        return result

    def stored(self) -> list[Result]:
        """All results in the folder, by name and seed."""
        files = (json.loads(path.read_text(encoding="utf-8")) for path in self.folder.glob("*-*.json"))
        return sorted((Result(**each) for each in files), key=lambda one: (one.name, one.seed))

    def costs(self, methods: Sequence[Method]) -> dict[str, float]:
        """CPU seconds of a training step by method's name, teachers included.

        They are read from `costs.json`, and measured and added there for methods that it does not list. Those take
        turns with the cheapest one known and are compared with it in each turn, so that other load on the machine
        affects all alike. Under a teacher a step's cost depends on the distillation, which only results tell.
        """
        path, told = self.folder / "costs.json", {one.name for one in self.stored()}
        listed: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        known = {name: cost for name, cost in listed.items() if " under " not in name or name in told}
        wanted = {one.name: one for method in methods for one in _with_teacher(method)}
        new = {name: one for name, one in wanted.items() if name not in known}
        if new:
            plain = {name: seconds for name, seconds in known.items() if " under " not in name}
            reference = min(plain, key=plain.__getitem__, default=next(iter(new)))
            timed = {reference: Method(reference), **new}
            clocks = {name: self._stepper(one) for name, one in timed.items()}
            known |= compared(clocks, known.get(reference))
            write_json(path, known)
        return known

    def _train(
        self, method: Method, seed: int, steps: int, teacher: nn.Module | None, name: str
    ) -> tuple[nn.Module, float]:
        """The trained network, and the CPU seconds of its training."""
        network, stage, distillation = self._prepare(method, seed, teacher, name)
        config = self.context.config.student_train
        config = replace(config, steps=steps, warmup=min(config.warmup, steps // 10), eval_every=0)
        began = time.process_time()
        train(network, stage, config, self.context.accelerator, distillation=distillation)
        return network.eval(), time.process_time() - began

    def _check(self, stored: Result, method: Method) -> None:
        """Raise `UserError` if a stored result may not stand beside those of a method in one table."""
        path, taught = self.folder / f"{slug(stored.name)}-{stored.seed}.json", stored.teacher
        if stored.budget != self.seconds:
            raise UserError(f"{path}: was given {stored.budget:g} CPU seconds; use another --folder")
        if stored.name != method.name or not method.teacher:
            return
        for key, asked in self._settings(method).items():
            if taught.get(key) != asked:
                raise UserError(f"{path}: was trained with --{key} {taught.get(key)}; use another --folder")

    def _settings(self, method: Method) -> dict[str, float | str]:
        """What is learned from a teacher, and how much of the budget its training takes, by option."""
        distill = self.context.config.distill
        fields = {key: getattr(distill, key) for key in ("loss", "weight", "schedule", "start")}
        return {"share": method.share, **fields}

    def _about(
        self, method: Method, teacher: nn.Module, steps: int, costs: Mapping[str, float]
    ) -> dict[str, float | str]:
        """Description of a trained teacher and of what is learned from it."""
        timing = {"steps": steps, "step_seconds": costs[method.teacher]}
        score = test_scores(self.context, teacher)[0]
        return {"name": method.teacher, "test_miou": score, **timing, **self._settings(method)}

    def _prepare(
        self, method: Method, seed: int, teacher: nn.Module | None, name: str
    ) -> tuple[nn.Module, Stage, Distillation | None]:
        context = self.context.with_config(replace(self.context.config, seed=seed))
        torch.manual_seed(seed)
        network = network_of(method.arch, len(context.splits.classes))
        stage = training_stage(context, slug(name), ModelConfig(method.arch), distills=teacher is not None)
        # scored by the caller, outside of the budget; the last weights are the result
        stage = replace(stage, evaluate=None)
        stage.view.preload(self.images.view)
        if teacher is None:
            return network, stage, None
        init_student(teacher, network, context.config.distill)
        return network, stage, build_distillation(teacher, network, stage, context)

    def _stepper(self, method: Method) -> Callable[[], float]:
        """A function that takes a training step and returns its CPU seconds."""
        teacher = (
            network_of(method.teacher, len(self.context.splits.classes)).eval() if method.teacher else None
        )
        network, stage, distillation = self._prepare(method, 0, teacher, "timing")
        stepper = Stepper(
            network, stage, self.context.config.student_train, self.context.accelerator, distillation
        )

        def clock() -> float:
            began = time.process_time()
            stepper.step()
            return time.process_time() - began

        return clock


def steps_within(seconds: float, method: Method, costs: Mapping[str, float]) -> tuple[int, int]:
    """The training steps of a method and of its teacher (0 without one) that a budget allows.

    Args:
        seconds: the budget; the teacher's steps take the method's share of it at most, and the rest is the student's.
        method: the method.
        costs: seconds of a step by method's name.

    Raises:
        UserError: not one step fits.
    """
    taught = int(seconds * method.share / costs[method.teacher]) if method.teacher else 0
    left = seconds - taught * costs.get(method.teacher, 0.0)
    steps = int(left / costs[method.name])
    if steps < 1 or (method.teacher and taught < 1):
        raise UserError(
            f"{method.name}: {seconds:g} s are not enough for one step of {costs[method.name]:.2f} s;"
            " raise --minutes"
        )
    return steps, taught


def compared(clocks: Mapping[str, Callable[[], float]], reference: float | None) -> dict[str, float]:
    """Seconds of each clock, from its median ratio to the first clock in the same turn.

    Args:
        clocks: each returns the seconds of one step.
        reference: seconds of the first one where they are known from an earlier call; None = measured here.
    """
    turns = [{name: clock() for name, clock in clocks.items()} for _ in range(WARM + TURNS)][WARM:]
    first = next(iter(clocks))
    reference = reference or statistics.median(turn[first] for turn in turns)
    return {
        name: reference * statistics.median(turn[name] / turn[first] for turn in turns) for name in clocks
    }


def slug(name: str) -> str:
    """A file name for a method."""
    return "-".join("".join(c if c.isalnum() else " " for c in name).split()).lower()


def _with_teacher(method: Method) -> tuple[Method, ...]:
    return (method.own_teacher, method) if method.teacher else (method,)
