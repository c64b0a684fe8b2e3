"""The trainings of a run: each network trained, or loaded if it has been."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from deploy.heartbeat import working
from distill.config import ModelConfig, TrainConfig
from distill.data.readers import training_images
from distill.data.unlabeled import order_of
from distill.distillation.build import build_distillation, init_student
from distill.distillation.ready_made import ready_teacher
from distill.export.evaluate import evaluate, torch_model
from distill.pipeline.networks import new_network
from distill.run_context import RunContext
from distill.training.checkpoint import load_network
from distill.training.checkpoint_metadata import check_metadata, checkpoint_metadata, find_metadata
from distill.training.distributed import by_main
from distill.training.log import say
from distill.training.loop import train
from distill.training.stage import Stage
from distill.training.train_state import BEST, finished

SHOWN = 2
"""Number of further figures that a validation logs with the score."""


@dataclass(frozen=True)
class Trained:
    """A network and the seconds that its training took, including those before a resume."""

    name: str
    arch: str
    network: nn.Module
    seconds: float


@dataclass(frozen=True)
class TrainedNetworks:
    """The networks of a run."""

    student: Trained
    teacher: Trained | None = None
    """None if the student is trained on labels alone."""
    baseline: Trained | None = None
    """The student's network, trained without the teacher."""


def train_all(context: RunContext) -> TrainedNetworks:
    """Train the teacher, the baseline and the student, or the student alone."""
    config, baseline = context.config, None
    if config.no_teacher:
        return TrainedNetworks(train_network(context, "student", config.student, config.student_train))
    teacher = the_teacher(context)
    if config.baseline:
        baseline = train_network(context, "baseline", config.student, config.student_train)
    student = train_network(context, "student", config.student, config.student_train, teacher.network)
    return TrainedNetworks(student, teacher, baseline)


def the_teacher(context: RunContext) -> Trained:
    """The teacher of a run, trained or used as it is."""
    config = context.config
    if not config.ready_made:
        return train_network(context, "teacher", config.teacher, config.teacher_train)
    network = ready_teacher(config, context.splits, context.stats).to(context.accelerator.device).eval()
    if config.distill.weight > 0 and not config.resume:
        metric = context.task.device.metric
        with working("validating the teacher", say):
            score = validate(context, network)[metric.key]
        say(f"teacher: val {metric.name} {metric.text(score)} {metric.unit}, used as it is")
    return Trained("teacher", network.source, network, 0.0)


def train_network(
    context: RunContext,
    name: str,
    model: ModelConfig,
    training: TrainConfig,
    teacher: nn.Module | None = None,
) -> Trained:
    """Train one network, unless this run has already done so, and load its best weights.

    Args:
        context: context of the run.
        name: name of the training and of its folder.
        model: the network.
        training: how to train it.
        teacher: the trained teacher that distills it; None = train on labels only.

    Raises:
        UserError: as `train` does.
    """
    config, folder = context.config, context.config.out / name
    seconds = finished_before(context, folder, training.steps)
    if seconds is None and training.steps:
        seconds = _train_new(context, name, model, training, teacher)
    if training.steps:  # into a fresh network, so that one just trained and one trained before are alike
        model_only = replace(model, pretrained=False, weights=None)
        network = new_network(config, model_only, context.splits, context.task)
        load_finished(network, folder, context)
    else:
        network = new_network(config, model, context.splits, context.task)
    return Trained(name, model.arch, network.to(context.accelerator.device).eval(), seconds or 0.0)


def finished_before(context: RunContext, folder: Path, steps: int) -> float | None:
    """The seconds of a stage if this is a resumed run that has finished it, else None."""
    if not context.config.resume:
        return None
    return by_main(lambda: finished(folder, steps), context.accelerator)


def load_finished(network: nn.Module, folder: Path, context: RunContext) -> None:
    """Load the best weights of a finished stage, which must fit the data as a teacher from elsewhere must.

    Raises:
        UserError: they were trained on other data, or the checkpoint cannot be read.
    """
    metadata = by_main(lambda: find_metadata(folder / BEST), context.accelerator)
    if metadata is not None:
        check_metadata(folder / BEST, metadata, context.data)
    load_network(network, folder / BEST, context.accelerator)


def _train_new(
    context: RunContext, name: str, model: ModelConfig, training: TrainConfig, teacher: nn.Module | None
) -> float:
    """Train a new network, distilled if there is a teacher, and return the seconds that it took."""
    config = context.config
    torch.manual_seed(config.seed)  # the same first weights for baseline and student
    network = new_network(config, model, context.splits, context.task)
    if teacher is not None:
        init_student(teacher, network, config.distill)
    distills = teacher is not None and config.distill.weight > 0
    stage = training_stage(context, name, model, config.distill.views if distills else 0, distills)
    distillation = None
    if teacher is not None and distills:
        distillation = build_distillation(teacher, network, stage, context)
    options = {"distillation": distillation, "resume": config.resume}
    return train(network, stage, training, context.accelerator, **options)


def training_stage(
    context: RunContext, name: str, model: ModelConfig, views: int = 0, distills: bool = False
) -> Stage:
    """The inputs of a model's training: augmented views of the training split, scored on the validation split.

    Args:
        context: context of the run.
        name: name of the training and of its folder.
        model: the network.
        views: fixed number of views of each image; 0 = new ones in every epoch.
        distills: whether there is a teacher, by which images without labels count.
    """
    config, data, stats, task = context.config, context.data, context.stats, context.task
    splits = training_images(data.splits) if distills else data.splits
    return Stage(
        name=name,
        folder=config.out / name,
        view=task.view(config, splits, stats, views),
        mean=torch.tensor(stats.mean).view(-1, 1, 1),
        std=torch.tensor(stats.std).view(-1, 1, 1),
        scale=stats.scale,
        task_loss=task.loss(config, stats, context.accelerator.device),
        aux=config.loss.aux,
        seed=config.seed,
        evaluate=lambda network: validate(context, network, context.accelerator),
        order=order_of(data.splits, config.data) if distills else None,
        metadata=checkpoint_metadata(model, config.loss.aux > 0, data),
    )


def validate(
    context: RunContext, network: nn.Module, accelerator: Accelerator | None = None
) -> dict[str, float]:
    """Scores on the validation split in the arithmetic of training; shared among processes as `evaluate` says."""
    dtypes = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    dtype = dtypes[context.accelerator.mixed_precision]
    model = torch_model(network, context.spec, context.data, context.accelerator.device, dtype)
    scorer = evaluate(model, context.splits.val, context.data, accelerator=accelerator)
    further = list(scorer.details().items())[:SHOWN]
    named = {name.lower().replace(" ", "_"): value for name, value in further if value is not None}
    return {context.task.device.metric.key: scorer.score(), **named}
