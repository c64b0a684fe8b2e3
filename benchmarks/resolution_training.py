"""The trainings of `benchmarks/resolution.py`."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace

import torch
from torch import nn

from benchmarks.accuracy_training import compared, slug
from benchmarks.peer_networks import build_peer, missing_peers
from benchmarks.stepping import Stepper
from deploy.errors import UserError
from deploy.files.atomic import write_json
from distill.config import ModelConfig, RunConfig
from distill.pipeline.networks import new_network
from distill.pipeline.pipeline import test_scores
from distill.pipeline.prepare import prepare
from distill.pipeline.resolution import Form, forms_of
from distill.pipeline.stages import training_stage
from distill.run_context import RunContext
from distill.training.loop import train
from distill.training.stage import Stage
from student.zoo import finer_outputs

PROBE = 64
"""Side of the image with which a network's stride is found."""
Networks = Mapping[str, Callable[[], nn.Module]]
"""Constructors of new networks by name."""


@dataclass(frozen=True)
class Result:
    """One network, trained and scored on the test split; scores are fractions in 0..1."""

    name: str
    stride: float
    steps: int
    cpu_seconds: float
    miou: float
    boundary_f1: float
    iou: Mapping[str, float | None]
    """By class."""


def opened(config: RunConfig) -> RunContext:
    """The data and the machine of a run that trains no teacher."""
    return prepare(replace(config, no_teacher=True, baseline=False))


def train_all(context: RunContext, seconds: float, peer: str) -> list[Result]:
    """Train and score each network, or read the result of an earlier call.

    Args:
        context: the run.
        seconds: CPU seconds of each training.
        peer: network of another package to add; left out if it is empty, or if it cannot be built here.

    Raises:
        UserError: an earlier result has another number of steps.
    """
    networks = _networks(context, peer)
    path = context.config.out / "costs.json"
    costs: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if new := [name for name in networks if name not in costs]:
        reference = next(iter(networks))
        timed = dict.fromkeys((reference, *new))
        clocks = {name: _clock(context, name, networks[name]) for name in timed}
        costs |= compared(clocks, costs.get(reference))
        write_json(path, costs)
    return [
        _trained(context, name, new, max(1, int(seconds / costs[name]))) for name, new in networks.items()
    ]


def _networks(context: RunContext, peer: str) -> Networks:
    config = context.config

    def student(form: Form) -> Callable[[], nn.Module]:
        return lambda: new_network(config, replace(own, **form.options), context.splits, context.task)

    arch, classes = config.student.arch, len(context.splits.classes)
    own = replace(config.student, detail=False)
    if any("output_stride" in options for options in finer_outputs(arch)):  # undo the choice of the run
        own = replace(own, output_stride=ModelConfig(arch).output_stride)
    coarse, *finer = forms_of(own, len(context.splits.channels), context.task.outputs)
    networks = {arch: student(coarse)} | {_name(arch, form): student(form) for form in finer}
    if peer and peer not in missing_peers() and len(context.splits.channels) == 3:
        networks[peer] = lambda: build_peer(peer, classes)
    return networks


def _name(arch: str, form: Form) -> str:
    return f"{arch}, {'detail' if form.options['detail'] else f'output stride {form.stride:g}'}"


def _trained(context: RunContext, name: str, new: Callable[[], nn.Module], steps: int) -> Result:
    config = context.config
    path = config.out / f"{slug(name)}.json"
    if path.exists():
        result = Result(**json.loads(path.read_text(encoding="utf-8")))
        if result.steps != steps:
            raise UserError(
                f"{path}: has {result.steps} steps, but the budget allows {steps}; use another --out"
            )
        return result
    torch.manual_seed(config.seed)
    network = new()
    training = config.student_train
    training = replace(training, steps=steps, warmup=min(training.warmup, steps // 10), eval_every=0)
    began = time.process_time()
    train(network, _stage(context, name), training, context.accelerator)
    spent = time.process_time() - began
    miou, details = test_scores(context, network.eval())
    iou = {key.removeprefix("IoU "): value for key, value in details.items() if key.startswith("IoU ")}
    stride = PROBE / network(torch.zeros(1, len(context.splits.channels), PROBE, PROBE)).logits.shape[-1]
    result = Result(name, stride, steps, spent, miou, details["boundary F1"] or 0.0, iou)
    write_json(path, asdict(result))
    return result


def _clock(context: RunContext, name: str, new: Callable[[], nn.Module]) -> Callable[[], float]:
    """A function that takes a training step and returns its CPU seconds."""
    stepper = Stepper(new(), _stage(context, name), context.config.student_train, context.accelerator)

    def clock() -> float:
        began = time.process_time()
        stepper.step()
        return time.process_time() - began

    return clock


def _stage(context: RunContext, name: str) -> Stage:
    """Training images of one network; scored by the caller, outside of the budget."""
    stage = training_stage(context, slug(name), context.config.student)
    stage.view.preload()
    return replace(stage, evaluate=None)
