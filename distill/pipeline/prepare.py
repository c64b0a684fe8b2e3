"""From a configuration to a run that can start: validate it, open the data, take the statistics, claim the folder."""

import os
import signal
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from torch import nn

from deploy.errors import UserError
from deploy.files.json_files import read_record
from deploy.heartbeat import working
from deploy.signals import handling
from distill.config import ModelConfig, RunConfig, TrainConfig
from distill.data.proportions import proportion_warnings
from distill.data.splits import Splits
from distill.data.stats import Stats
from distill.distillation.build import build_distillation_loss, check_aux, probe_size
from distill.distillation.ready_made import check_ready, digest_of_teacher, ready_lines
from distill.export.to_onnx import input_spec
from distill.losses.distillation_loss import DistillationTerms
from distill.pipeline.claim import STATISTICS, CheckedRun, claim, computed_by
from distill.pipeline.depths import with_depths
from distill.pipeline.export_check import check_export
from distill.pipeline.initial_weights import check_initial_weights, check_whole, with_normalization
from distill.pipeline.machines import check_alike, check_restarts, check_shared
from distill.pipeline.networks import new_network
from distill.pipeline.read_check import check_readable
from distill.pipeline.resolution import with_detail
from distill.pipeline.student_choice import choose_student, with_student
from distill.pipeline.validation import (
    check_class_pixels,
    check_config,
    check_data,
    check_terms,
    fit_crop,
    without_teacher_training,
)
from distill.run_context import RunContext, terms_of
from distill.run_folder import Origin, check_origin, holds_run, origin_of
from distill.selection.choice import StudentChoice
from distill.tasks.registry import open_splits, task_of
from distill.tasks.task import PreparedData, TrainingTask
from distill.training.checkpoint_metadata import (
    check_metadata,
    find_metadata,
    network_from,
    require_metadata,
)
from distill.training.distributed import SILENCE, by_main, together, warn_of_a_lone_process
from distill.training.log import say
from distill.training.sync_norm import check_norms
from distill.training.tracking import require_tracker
from teacher.external.own_network import check_own, is_own


def prepare(config: RunConfig) -> RunContext:
    """`check_run`, then `claim` the output folder.

    Raises:
        UserError: as both do.
    """
    checked = check_run(config)
    claim(checked)
    return checked.context


def check_run(config: RunConfig) -> CheckedRun:
    """Check the whole configuration, open the data, and measure the training split; nothing is written.

    Raises:
        UserError: a mistake in them, or the output folder holds another run.
    """
    check_restarts(config.resume)
    accelerator = start_accelerator(config.precision, config.tracker)
    check_shared(config.out, accelerator)
    opened = together(lambda: open_checked(config, accelerator), accelerator)
    check_alike(opened.config, computed_by(accelerator), opened.splits, accelerator)
    resumed = by_main(lambda: compare(opened, accelerator), accelerator)
    if accelerator.is_main_process:
        for line in (*opened.lines, *resumed.lines):
            say(line)
    stats = by_main(lambda: measured(opened, resumed.resumes), accelerator)
    config = opened.config if resumed.choice is None else with_student(opened.config, resumed.choice)
    data = PreparedData(opened.splits, stats, opened.task)
    together(lambda: check_teachers(config, data), accelerator)
    context = RunContext(config, data, input_spec(data, config.data), opened.terms, accelerator)
    return CheckedRun(opened.config, context, resumed.origin, resumed.choice)


@dataclass(frozen=True)
class Opened:
    """A configuration that has been checked as far as this goes without the run's folder, and its data."""

    config: RunConfig
    splits: Splits
    task: TrainingTask
    terms: DistillationTerms
    lines: list[str]
    """What was adjusted, to be printed."""


def open_checked(config: RunConfig, accelerator: Accelerator) -> Opened:
    """Check the configuration, and open the data; nothing is written."""
    check_config(config, accelerator.num_processes)
    config = without_teacher_training(config)
    terms = terms_of(config)
    check_terms(config, terms)
    splits = open_splits(config.data, config.seed)
    task = task_of(config, splits)
    check_data(config, splits, task, terms)
    distorted = proportion_warnings(splits.train, config.data)
    config, adjusted = fit_crop(config)
    config, kept = with_depths(config)
    config, lines = with_detail(config, splits, task)
    check_initial_weights(config, splits)
    lines += check_networks(config, splits, task, terms)
    return Opened(config, splits, task, terms, [*distorted, *adjusted, *kept, *lines])


@dataclass(frozen=True)
class Compared:
    """A run beside what its folder holds."""

    resumes: bool
    """Whether the folder holds the run already."""
    choice: StudentChoice | None
    origin: Origin
    lines: list[str]
    """What cannot be compared, to be printed."""


def compare(opened: Opened, accelerator: Accelerator) -> Compared:
    """Compare a run's settings and data with its folder, and choose its student; a new run is tried out instead.

    Raises:
        UserError: the folder holds another run, no student is fast enough, or a new run could not be finished.
    """
    config, splits, task = opened.config, opened.splits, opened.task
    resumes = holds_run(config, computed_by(accelerator))
    choice = choose_student(config, splits, task, resumes)
    if choice is not None:
        check_networks(with_student(config, choice), splits, task, opened.terms)
    if not resumes:
        check_export(config, splits, task)
        check_readable(splits, unlabeled=not config.no_teacher)
    with working("comparing the data", say):
        origin = origin_of(splits, digest_of_teacher(config))
        lines = check_origin(config.out, origin) if resumes else []
    return Compared(resumes, choice, origin, lines)


def start_accelerator(precision: str, tracker: str = "none") -> Accelerator:
    """Device, arithmetic, processes and tracker of a run.

    Args:
        precision: as in `RunConfig.precision`.
        tracker: as in `RunConfig.tracker`.

    Raises:
        UserError: the tracker's package is missing, or the device cannot compute in the precision.
    """
    require_tracker(tracker)
    waits = int(os.environ.get("WORLD_SIZE", "1")) > 1
    # a signal ends a process that waits for the others inside a library, where Python cannot raise anything
    with handling(signal.SIG_DFL) if waits else nullcontext():
        accelerator = Accelerator(
            mixed_precision=_precision(precision),
            cpu=not torch.accelerator.is_available(),  # set explicitly; otherwise accelerate ignores torchrun
            log_with=None if tracker == "none" else tracker,
            kwargs_handlers=[InitProcessGroupKwargs(timeout=SILENCE)],
        )
    warn_of_a_lone_process(accelerator)
    return accelerator


def check_networks(
    config: RunConfig, splits: Splits, task: TrainingTask, terms: DistillationTerms
) -> list[str]:
    """Build the networks, so that what cannot be built or trained is refused before hours of training.

    Returns:
        Lines to print.

    Raises:
        UserError: a network cannot be built, trained or used as it is.
    """
    student = _tried("student", config, splits, task)
    check_whole("student", config.student, config.student_train, student)
    check_norms("student-train", config.student_train, student)
    for path in config.distill.teachers:
        require_metadata(path)
    if config.no_teacher:
        return []
    size = probe_size(config)
    if config.ready_made:
        ready = check_ready(config, splits)
        build_distillation_loss(config.distill, terms, ready, student, size)
        check_aux(terms, student, size)
        return ready_lines(config, splits, ready)
    teacher = _tried("teacher", config, splits, task)
    check_whole("teacher", config.teacher, config.teacher_train, teacher)
    build_distillation_loss(config.distill, terms, teacher, student, size)
    check_aux(terms, student, size)
    check_norms("teacher-train", config.teacher_train, teacher)
    return []


def _tried(name: str, config: RunConfig, splits: Splits, task: TrainingTask) -> nn.Module:
    """The teacher or student, new; one of the user's own has been run on images of the sizes of the run."""
    model: ModelConfig = getattr(config, name)
    network, crop = new_network(config, model, splits, task), config.augment.crop
    if is_own(model.arch):
        shape = (model.arch, network, len(splits.channels), task.outputs)
        check_own(*shape, {crop, config.data.size}, training=False)
        if getattr(config, f"{name}_train").steps:
            check_own(*shape, [crop], training=True)
    return network


def measured(opened: Opened, resumes: bool) -> Stats:
    """The statistics of the training split, computed for a new run and read for one that is resumed.

    Mean and deviation are those of the weights file that the run starts from where it describes them.

    Args:
        opened: the run.
        resumes: whether its folder holds it already.

    Raises:
        UserError: a training image cannot be read, none has a valid pixel, or a class has none.
    """
    config, splits, path = opened.config, opened.splits, opened.config.out / STATISTICS
    if resumes and path.exists():
        return read_record(path, Stats, "delete it, and it is computed again")
    with working("statistics of the training split", say):
        stats = opened.task.statistics(config, splits)
    for line in check_class_pixels(config.data, splits, stats):
        say(line)
    stats, lines = with_normalization(config, splits, stats)
    for line in lines:
        say(line)
    return stats


def check_teachers(config: RunConfig, data: PreparedData) -> None:
    """Raise `UserError` where a teacher, or a student, that is not trained here does not fit the data."""
    _check_untrained(config.student, config.student_train, data)
    if config.no_teacher:
        return
    if config.builds_teacher:
        _check_untrained(config.teacher, config.teacher_train, data)
    for path in config.distill.teachers:
        network_from(path, data)


def _check_untrained(model: ModelConfig, training: TrainConfig, data: PreparedData) -> None:
    weights = model.weights
    metadata = find_metadata(weights) if weights is not None and training.steps == 0 else None
    if weights is not None and metadata is not None:
        check_metadata(weights, metadata, data)


def _precision(asked: str) -> str:
    """accelerate's name for it; `auto` is bfloat16 where the device computes in it, else float32 (float16 on a GPU)."""
    names = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
    if torch.cuda.is_available():
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return names.get(asked, "bf16" if bf16 else "fp16")
    if asked == "fp16":
        raise UserError("--precision fp16 needs a GPU; use bf16 or fp32 on a CPU")
    # Half precision pays on a CPU with matrix units, and on AMD's AVX-512 (measured 2×); on Intel's without AMX
    # it was measured no faster than float32.
    cpu = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    fast = cpu.get("amx_bf16") or (cpu.get("avx512_bf16") and "Intel" not in cpu.get("cpu_name", ""))
    return names.get(asked, "bf16" if fast else "no")
