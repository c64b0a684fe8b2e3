"""The last step before the first training: fit the trainings to `--max-minutes`, and say what is about to happen."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from deploy import host
from deploy.files.json_files import read_record
from deploy.heartbeat import working
from deploy.text import duration
from distill.config import ModelConfig
from distill.distillation.ready_made import ready_teacher
from distill.distillation.weight_transfer import init_from_teacher
from distill.overrides import with_changes
from distill.pipeline.contention import warning_of_other_work
from distill.pipeline.estimate import PlannedTraining, Speed, measure_speeds, plan, shortened
from distill.pipeline.networks import new_network
from distill.run_context import RunContext
from distill.run_folder import RESTART, SCHEDULE
from distill.training.distributed import by_main, shared
from distill.training.log import say
from student.zoo import count_parameters
from teacher.external.places import pretrained_line

FEW_STEPS = 50
"""Runs of fewer steps are not timed."""
LEAST_TEACHING = 0.5
"""Share of its steps that the time must leave a teacher. Trained less, it cost the student more than it taught
(docs/resolution.md: 15 points of mIoU with a third of the steps)."""
LONG = 3 * 3600
"""Seconds of training on a CPU from which a run is warned of."""
PRETRAIN = " (`edgedistill pretrain` first can give better ones)"
"""Of photos: what it gave is in docs/unlabeled.md."""
MOST_CLASSES = 12
ARITHMETIC = {"no": "fp32", "bf16": "bf16", "fp16": "fp16"}


def fit_to_time(context: RunContext) -> tuple[RunContext, Mapping[str, object] | None]:
    """Reduce steps where `max_minutes` asks for it, and print the summary.

    A resumed run takes the steps that it has recorded, however fast the machine is now.

    Returns:
        The context to train with; what was reduced, for `claim` to record in `schedule.json`, or None if it is recorded
        or there is no limit.

    Raises:
        UserError: the file of a resumed run is damaged.
    """
    config, path = context.config, context.config.out / SCHEDULE
    trainings, schedule = None, None
    steps = config.student_train.steps + (0 if config.no_teacher else config.teacher_train.steps)
    recorded = by_main(lambda: _recorded(path) if config.resume else None, context.accelerator)
    context = _with_changes(context, recorded or {})
    if config.max_minutes or steps >= FEW_STEPS:
        say("timing a training step of each network …")
        with working("timing", say), warning_of_other_work():
            speeds = measure_speeds(context)
        if recorded is None:
            changes = shared(_fitted(context, speeds), context.accelerator)
            context = _with_changes(context, changes)
            schedule = changes if config.max_minutes else None
        trainings = plan(context, speeds)
    if context.accelerator.is_main_process:
        for line in summary_lines(context, trainings):
            say(line)
    return context, schedule


def _recorded(path: Path) -> dict[str, object] | None:
    return read_record(path, dict[str, object], RESTART) if path.exists() else None


def _fitted(context: RunContext, speeds: Mapping[str, Speed]) -> dict[str, object]:
    """Changes with which the trainings fit `max_minutes`, if need be without the teacher (see `LEAST_TEACHING`)."""
    config = context.config
    changes = shortened(config, plan(context, speeds))
    steps, full = changes.get("teacher_train.steps"), config.teacher_train.steps
    others = config.distill.teachers or config.teacher.weights is not None or config.ready_made
    needed = others or context.splits.unlabeled is not None  # images that only a teacher explains
    if not isinstance(steps, int) or steps >= LEAST_TEACHING * full or needed:
        return changes
    alone = context.with_config(replace(config, no_teacher=True))
    if context.accelerator.is_main_process:
        say(
            f"teacher   left out: {config.max_minutes:g} minutes leave {config.teacher.arch} {steps} of its {full}"
            " steps, and labels alone teach more in that time; a larger --max-minutes keeps it, 0 sets no limit"
        )
    return {"no_teacher": True} | shortened(alone.config, plan(alone, speeds))


def summary_lines(context: RunContext, trainings: Sequence[PlannedTraining] | None) -> Iterator[str]:
    """What a run uses, and how long it trains.

    Args:
        context: the run.
        trainings: its plan; None if it has not been timed.
    """
    config, splits, accelerator = context.config, context.splits, context.accelerator
    counts = f"{len(splits.train)} training, {len(splits.val)} validation, {len(splits.test)} test images"
    others = (
        "" if splits.unlabeled is None or config.no_teacher else f", {len(splits.unlabeled)} without labels"
    )
    height, width = config.data.size
    yield f"data      {splits.name}: {counts}{others}; {', '.join(splits.channels)} at {height}×{width}"
    if splits.classes:
        names = [info.name for info in splits.classes]
        more = f" and {len(names) - MOST_CLASSES} more" if len(names) > MOST_CLASSES else ""
        yield f"classes   {', '.join(names[:MOST_CLASSES])}{more}"
    yield f"device    {_device(accelerator.device)}, {ARITHMETIC[accelerator.mixed_precision]}"
    student, from_teacher = new_network(config, config.student, splits, context.task), 0.0
    if config.ready_made:
        yield f"teacher   {ready_teacher(config, splits).source}; {_ready_origin(config.teacher)}used as it is"
    elif not config.no_teacher:
        teacher = new_network(config, config.teacher, splits, context.task)
        yield f"teacher   {_network(config.teacher, teacher)}"
        if config.distill.start == "teacher":
            from_teacher = init_from_teacher(student, teacher)
    hint = PRETRAIN if splits.optical and not from_teacher and _is_new_edge(config.student) else ""
    yield f"student   {_network(config.student, student, from_teacher)}{hint}"
    if trainings is not None:
        yield from _training_lines(trainings, accelerator.device)


def _training_lines(trainings: Sequence[PlannedTraining], device: torch.device) -> Iterator[str]:
    each = ", ".join(f"{one.name} {one.steps} steps in {duration(one.seconds)}" for one in trainings)
    total = sum(one.seconds for one in trainings)
    whole = f"; about {duration(total)} in all" if len(trainings) > 1 else ""
    yield f"training  {each}{whole}, then export, INT8 and scores"
    if device.type == "cpu" and total > LONG:
        yield (
            "warning: that is long for a CPU; use a GPU, --max-minutes 60, or a preset for CPUs (`edgedistill presets`)"
        )


def _network(model: ModelConfig, network: nn.Module, from_teacher: float = 0.0) -> str:
    return f"{model.arch}, {count_parameters(network) / 1e6:.2f} M parameters; {_origin(model, from_teacher)}"


def _is_new_edge(model: ModelConfig) -> bool:
    return model.arch.startswith("edge") and model.weights is None


def _origin(model: ModelConfig, from_teacher: float) -> str:
    """Where the first weights of a network come from."""
    if from_teacher:
        return f"starts from its teacher's weights ({from_teacher:.0%})"
    if model.weights is not None:
        return f"weights of {model.weights}"
    if not model.pretrained:
        return "new weights"
    return pretrained_line(model.arch)


def _ready_origin(model: ModelConfig) -> str:
    published = model.bundle is None and model.weights is None and model.pretrained
    return f"{pretrained_line(model.arch)}, " if published else ""


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{host.cpu_name()}, {torch.get_num_threads()} threads" if device.type == "cpu" else str(device)


def _with_changes(context: RunContext, changes: Mapping[str, object]) -> RunContext:
    return context.with_config(with_changes(context.config, changes)) if changes else context
