"""`--student.max-ms`: the student of a run is the largest of its family that is fast enough."""

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import msgspec
from torch import nn

from deploy.errors import UserError
from deploy.files.atomic import write_json
from deploy.measure.command import subjects_of
from deploy.measure.records import Measurement, Option, Shape, read_measurement
from deploy.measure.timing import Subject, measure_bundles
from distill.config import RunConfig
from distill.data.splits import Splits
from distill.data.stats import unmeasured
from distill.export.to_onnx import input_spec
from distill.pipeline.networks import new_network
from distill.selection.choice import CHOICE, StudentChoice, choose, read_choice, trained_words, words
from distill.selection.untrained import Target, Untrained, write_candidates
from distill.tasks.task import PreparedData, TrainingTask
from distill.training.log import say
from student.candidates import canonical, family_of
from student.zoo import COMMON
from teacher.imagenet import why_missing

SECONDS = 0.5
"""About how long each form of each candidate is timed."""
IMAGENET = ("pspnet", "deeplabv3plus")
"""Families whose networks are named after timm's backbones."""
WITHOUT_INFLUENCE = ("dropout", "pretrained")
"""Options in `COMMON` on which inference does not depend."""


def choose_student(
    config: RunConfig, splits: Splits, task: TrainingTask, resumes: bool = False
) -> StudentChoice | None:
    """Choose the student by the run's budget; a resumed run keeps its choice.

    Args:
        config: of the run, with every option of the student decided.
        splits: the data set.
        task: what the networks are for.
        resumes: whether the run's folder holds the run already.

    Returns:
        The choice; None without a budget.

    Raises:
        UserError: no candidate is fast enough, or the measurement does not fit the run.
    """
    student, recorded = config.student, config.out / CHOICE
    if not student.max_ms:
        return None
    if resumes and recorded.exists():
        choice = read_choice(recorded)
        say(f"{words(choice)}; chosen when the run started")
        return choice
    target = target_of(config, splits, task)
    if student.on is None:
        measurement, source = _measured_here(config, splits, task, target), ""
    else:
        measurement, source = _usable(config, read_measurement(student.on)), str(student.on)
    shape = Shape.of(target.spec, target.outputs, target.task)
    arch, options = canonical(student.arch), options_of(config)
    choice = choose(measurement, arch, options, shape, student.max_ms, config.int8.enabled, source)
    say(words(choice))
    return choice


def with_student(config: RunConfig, choice: StudentChoice) -> RunConfig:
    """The configuration with the chosen student."""
    return replace(config, student=replace(config.student, arch=choice.arch))


def write_choice(config: RunConfig, choice: StudentChoice | None) -> None:
    """Record the choice of a run, if it makes one, in the run's folder."""
    if choice is not None:
        write_json(config.out / CHOICE, choice)


def time_trained(config: RunConfig) -> None:
    """Time the finished student, if its candidates were timed on this machine, add it to the record and say so.

    It may be slower than it was untrained: where INT8 costs too much accuracy, layers stay in float.
    """
    if not config.student.max_ms or config.student.on is not None:
        return
    choice = read_choice(config.out / CHOICE)
    subject = Subject(config.out / "student.bundle", "the trained student")
    [row] = measure_bundles([subject], None, SECONDS, say, choice.precisions).rows
    choice = msgspec.structs.replace(choice, trained=row.fastest(choice.precisions))
    write_json(config.out / CHOICE, choice)
    say(f"student: {trained_words(choice)}")


def options_of(config: RunConfig) -> dict[str, Option]:
    """The options of the run's student on which its speed depends and which are not at their defaults."""
    values = {name: getattr(config.student, name) for name in COMMON if name not in WITHOUT_INFLUENCE}
    return {name: value for name, value in values.items() if value != COMMON[name]}


def target_of(config: RunConfig, splits: Splits, task: TrainingTask) -> Target:
    """What the run exports its student for; with statistics that no inference time depends on."""
    stats = unmeasured(config.data, len(splits.channels), len(splits.classes))
    spec = input_spec(PreparedData(splits, stats, task), config.data)
    outputs = task.output_specs(spec, stats)
    name, head = task.device.name, task.head(stats)
    return Target(spec, splits.classes, outputs, name, head, config.export, config.int8.enabled)


def candidates_of(config: RunConfig, splits: Splits, task: TrainingTask) -> list[Untrained]:
    """The family of the run's student, each member with the run's options; without those that a line leaves out."""
    lacking = _without_weights(config, family_of(config.student.arch))
    options = options_of(config)
    plain = replace(config.student, pretrained=False, weights=None)

    def member(arch: str) -> Untrained:
        def build() -> nn.Module:
            return new_network(config, replace(plain, arch=arch), splits, task)

        return Untrained(arch, options, build)

    return [member(arch) for arch in family_of(config.student.arch) if arch not in lacking]


def _without_weights(config: RunConfig, archs: Iterable[str]) -> set[str]:
    """The networks that a run with `pretrained` cannot start from ImageNet's weights; a line says why of each."""
    lacking: set[str] = set()
    for arch in archs if config.student.pretrained else ():
        family, _, backbone = arch.partition("/")
        reason = why_missing(backbone) if family in IMAGENET else ""
        if reason:
            say(f"{arch}: left out, its ImageNet weights cannot be had ({reason})")
            lacking.add(arch)
    return lacking


def _usable(config: RunConfig, found: Measurement) -> Measurement:
    """A measurement without the candidates that the run cannot start as it is asked to.

    Raises:
        UserError: there is none left.
    """
    archs = dict.fromkeys(row.candidate.arch for row in found.rows if row.candidate)
    lacking = _without_weights(config, archs)
    rows = tuple(row for row in found.rows if row.candidate is None or row.candidate.arch not in lacking)
    if lacking and len(lacking) == len(archs):
        raise UserError(
            f"--student.on {config.student.on}: the ImageNet weights of none of its candidates can be had; connect, or"
            " leave out --student.pretrained"
        )
    return msgspec.structs.replace(found, rows=rows)


def _measured_here(config: RunConfig, splits: Splits, task: TrainingTask, target: Target) -> Measurement:
    """Export the candidates and time them on the CPU of this machine."""
    with tempfile.TemporaryDirectory(prefix="edgedistill-") as folder:
        write_candidates(Path(folder), candidates_of(config, splits, task), target, say)
        return measure_bundles(subjects_of(Path(folder)), None, SECONDS, say)
