"""How long the trainings of a run take, from the speed of a few images, and fewer steps where that is too long."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from distill.config import ModelConfig, RunConfig, TrainConfig
from distill.data.sample import Batch, stack
from distill.data.unlabeled import order_of
from distill.distillation.ready_made import ready_teacher
from distill.pipeline.networks import new_network
from distill.pipeline.stages import training_stage
from distill.run_context import RunContext
from distill.training.step_module import TrainStepModule, normalized

CPU_IMAGES = 2
"""Images of the first timed step on a CPU: the least that batch norms after pooling to 1×1 can train with."""
QUICK = 1.0
"""Seconds of that step below which a whole micro-batch is timed, which takes less time per image."""


@dataclass(frozen=True)
class Speed:
    """Seconds per image of a network, at the size of a training crop."""

    loading: float
    """Read and augment."""
    step: float
    """Forward and backward."""
    forward: float
    """Forward alone, in evaluation."""


@dataclass(frozen=True)
class PlannedTraining:
    """A training before it starts."""

    name: str
    steps: int
    step_seconds: float
    """For all steps."""
    validation_seconds: float
    """For all scores on the validation split."""
    validations: int
    """How many these are."""
    once_seconds: float = 0.0
    """For what does not depend on the steps: the teacher's outputs for fixed views."""

    @property
    def seconds(self) -> float:
        """Time of the training."""
        return self.once_seconds + self.step_seconds + self.validation_seconds


def plan(context: RunContext, speeds: Mapping[str, Speed]) -> list[PlannedTraining]:
    """The trainings of a run that is about to start, in order.

    Args:
        context: the run.
        speeds: of "student" and, unless the run has no teacher, of "teacher".
    """
    config = context.config
    alone = planned(context, "student", config.student_train, speeds["student"])
    if config.no_teacher:
        return [alone]
    trainings = []
    if config.builds_teacher:
        trainings.append(planned(context, "teacher", config.teacher_train, speeds["teacher"]))
    if config.baseline:
        trainings.append(replace(alone, name="baseline"))
    taught = teaching_seconds(context, speeds["teacher"].forward)
    if config.distill.views:
        return [*trainings, replace(alone, once_seconds=taught)]
    return [*trainings, replace(alone, step_seconds=alone.step_seconds + taught)]


def planned(context: RunContext, name: str, training: TrainConfig, speed: Speed) -> PlannedTraining:
    """A training without distillation."""
    images = training.steps * training.batch_size / context.accelerator.num_processes
    seconds = images * (speed.step + (0 if training.workers else speed.loading))
    whole = _area(context.config.data.size) / _area(context.config.augment.crop)
    each = len(context.splits.val) * speed.forward * whole / context.accelerator.num_processes
    times = validations(training)
    return PlannedTraining(name, training.steps, seconds, times * each, times)


def teaching_seconds(context: RunContext, forward: float) -> float:
    """What the teachers' outputs cost in all: computed in every step, or once for each fixed view."""
    config, processes = context.config, context.accelerator.num_processes
    if not (config.distill.weight and config.student_train.steps):
        return 0.0
    order = order_of(context.splits, config.data)
    views = config.distill.views * (order.labeled + order.unlabeled)
    images = views or config.student_train.steps * config.student_train.batch_size
    return images * forward * (1 + len(config.distill.teachers)) / processes


def validations(training: TrainConfig) -> int:
    """How often a training is scored on the validation split: every `eval_every` steps and at the end."""
    every = training.eval_every or max(1, training.steps)
    return -(-training.steps // every)


def shortened(config: RunConfig, trainings: Sequence[PlannedTraining]) -> dict[str, object]:
    """Changes of the configuration, by dotted name, with which its trainings take about `max_minutes` at most.

    Steps, warm-up and the steps between validations are reduced in proportion, but to no less than one step. Where the
    validations would take more than half of the time, there is only the one at the end; or with the schedule `plateau`,
    which needs scores on the way, as many as half of the time allows.

    Args:
        config: the run.
        trainings: its plan.
    """
    limit = 60 * config.max_minutes
    if not limit or sum(one.seconds for one in trainings) <= limit:
        return {}
    limit = max(0.0, limit - sum(one.once_seconds for one in trainings))
    sections = ["student_train"] if config.no_teacher else ["teacher_train", "student_train"]
    needed = any(getattr(config, section).schedule == "plateau" for section in sections)
    validating = sum(one.validation_seconds for one in trainings)
    last = sum(one.validation_seconds / max(1, one.validations) for one in trainings)
    often = validating <= limit / 2
    spent = validating if often else limit / 2 if needed else last
    fewer = 1.0 if often else validating / max(spent, 1e-9)
    share = min(1.0, max(0.0, limit - spent) / sum(one.step_seconds for one in trainings))
    changes: dict[str, object] = {}
    for section in sections:
        training: TrainConfig = getattr(config, section)
        keeps = training.eval_every and (often or training.schedule == "plateau")
        every = max(1, int(training.eval_every * share * fewer)) if keeps else 0
        changes |= {
            f"{section}.steps": min(training.steps, max(1, int(training.steps * share))),
            f"{section}.warmup": int(training.warmup * share),
            f"{section}.eval_every": every,
        }
    return changes


def measure_speeds(context: RunContext) -> dict[str, Speed]:
    """Time new networks of the kinds that the run trains, on its first images."""
    config = context.config
    speeds = {"student": measure_speed(context, config.student, config.student_train)}
    if config.builds_teacher:
        speeds["teacher"] = measure_speed(context, config.teacher, config.teacher_train)
    elif not config.no_teacher:
        speeds["teacher"] = Speed(0.0, 0.0, _ready_forward(context))
    return speeds


def _ready_forward(context: RunContext) -> float:
    """Seconds per image of a teacher that is used as it is, at the size of a training crop."""
    device = context.accelerator.device
    teacher = ready_teacher(context.config, context.splits, context.stats).to(device)
    images = torch.zeros(
        CPU_IMAGES, len(context.splits.channels), *context.config.augment.crop, device=device
    )
    return _second(lambda: _forward(context, teacher, images)) / CPU_IMAGES


def measure_speed(context: RunContext, model: ModelConfig, training: TrainConfig) -> Speed:
    """Time a new network of a configuration on a micro-batch; on a CPU, where that would take long, on fewer images."""
    accelerator = context.accelerator
    whole = max(CPU_IMAGES, training.batch_size // (training.accumulate * accelerator.num_processes))
    if accelerator.device.type != "cpu":
        return _speed(context, model, training, whole)
    speed = _speed(context, model, training, CPU_IMAGES)
    is_quick = CPU_IMAGES * speed.step < QUICK and whole > CPU_IMAGES
    return _speed(context, model, training, whole) if is_quick else speed


def _speed(context: RunContext, model: ModelConfig, training: TrainConfig, images: int) -> Speed:
    """The second of two turns counts."""
    config, accelerator = context.config, context.accelerator
    stage = training_stage(context, "estimate", model)
    keys = [divmod(position, len(context.splits.train)) for position in range(images)]
    batch = stack([stage.view[key] for key in keys]).to(accelerator.device)
    new = replace(model, pretrained=False, weights=None)
    network = new_network(config, new, context.splits, context.task)
    module = TrainStepModule(network, None, stage.task_loss, stage.aux).to(accelerator.device)
    if training.channels_last:
        module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    image = normalized(batch, stage, training.channels_last)
    loading = _second(lambda: [stage.view[key] for key in keys])
    step = _second(lambda: _step(context, module, image, batch))
    forward = _second(lambda: _forward(context, network, image))
    return Speed(loading / images, step / images, forward / images)


def _step(context: RunContext, module: nn.Module, image: torch.Tensor, batch: Batch) -> None:
    module.train()
    with context.accelerator.autocast():
        loss = module(image, batch, None, (0.0, 0.0))["loss"]
    loss.backward()
    _wait(context)


@torch.no_grad()
def _forward(context: RunContext, network: nn.Module, image: torch.Tensor) -> None:
    network.eval()
    with context.accelerator.autocast():
        network(image)
    _wait(context)


def _wait(context: RunContext) -> None:
    if context.accelerator.device.type != "cpu":
        torch.accelerator.synchronize()


def _second(work: Callable[[], object]) -> float:
    """Seconds of the second of two calls, as the first allocates, compiles and fills caches."""
    work()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]
