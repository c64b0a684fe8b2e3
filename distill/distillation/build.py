"""Build a distillation from its configuration: losses, teachers, and the source of their outputs."""

from collections.abc import Sequence
from itertools import chain

import torch
from torch import nn

from deploy.errors import UserError
from distill.config import DistillConfig, RunConfig
from distill.data.fingerprint import digest_of
from distill.distillation.ready_teacher import ReadyTeacher
from distill.distillation.teachers import cached_teacher, identity_of, online_teacher
from distill.distillation.weight_transfer import init_from_teacher
from distill.losses.distillation_loss import (
    VOID,
    DistillationLoss,
    DistillationTerms,
    shapes_of,
)
from distill.losses.pseudo_labels import PseudoLabels, pseudo_label_weights
from distill.run_context import RunContext
from distill.training.checkpoint_metadata import network_from
from distill.training.distributed import require_same
from distill.training.log import say
from distill.training.stage import Stage
from distill.training.step_module import Distillation
from student.zoo import channels_of
from teacher.external.own_network import is_own

PROBE = 64
"""Side of the image with which the channels of a network's features are found, where it takes any."""


def build_distillation(
    teacher: nn.Module,
    student: nn.Module,
    stage: Stage,
    context: RunContext,
    terms: DistillationTerms | None = None,
) -> Distillation:
    """Build the distillation that `context.config.distill` describes.

    Args:
        teacher: the trained teacher; additional ones are loaded from the checkpoints in the configuration.
        student: the network to be trained.
        stage: training of the student; if it has fixed views, the teacher's outputs are cached for them.
        context: context of the run.
        terms: terms of the loss, in place of those of the run.

    Raises:
        UserError: the losses do not fit the networks (see `DistillationLoss`), an additional teacher does not fit the
            data (see `network_from`), or its outputs cannot be cached (see `cached_teacher`).
    """
    config, accelerator = context.config, context.accelerator
    distill, terms = config.distill, terms or context.terms
    counts = context.stats.class_pixels
    distillation_loss = build_distillation_loss(distill, terms, teacher, student, probe_size(config), counts)
    distillation_loss = distillation_loss.to(accelerator.device)
    networks = _networks(teacher, context)
    channels_last = config.student_train.channels_last
    teach = online_teacher(
        networks,
        accelerator,
        features=(*terms.features, *([VOID] if has_void(teacher) else [])),
        combine=distill.combine,
        channels_last=channels_last,
    )
    if stage.view.views:
        folder = distill.cache or config.out / "teacher-cache"
        identity = identity_of(networks, distill.combine)
        # may be another run's; the data of a run itself are compared when it resumes
        if distill.cache is not None:
            identity["data"] = digest_of(stage.view.reader)
        teach = cached_teacher(
            teach, stage, folder, distill.cache_dtype, accelerator, identity, channels_last
        )
    return Distillation(teach, distillation_loss, distill.weight, distill.schedule)


def _networks(teacher: nn.Module, context: RunContext) -> list[nn.Module]:
    """The teacher and those of the configuration, the same in all processes."""
    distill, accelerator = context.config.distill, context.accelerator
    networks = [teacher, *(network_from(path, context.data) for path in distill.teachers)]
    if accelerator.num_processes > 1:
        problem = "the weights of the teachers differ; give all processes the same files"
        require_same(identity_of(networks, distill.combine), accelerator, problem)
    return networks


def init_student(teacher: nn.Module, student: nn.Module, distill: DistillConfig) -> None:
    """Initialize a new student with its teacher's weights, if configured and if both are of the same family."""
    if distill.start == "teacher" and (share := init_from_teacher(student, teacher)):
        say(f"student: starts from its teacher's weights ({share:.0%} of its own)")


def build_distillation_loss(
    distill: DistillConfig,
    terms: DistillationTerms,
    teacher: nn.Module,
    student: nn.Module,
    size: tuple[int, int] = (PROBE, PROBE),
    class_pixels: Sequence[int] = (),
) -> DistillationLoss:
    """Build the distillation loss of a configuration for two networks.

    Args:
        distill: the configuration.
        terms: the parsed terms of the loss.
        teacher: on any device.
        student: on any device; the loss compares its output with the teacher's.
        size: height and width of an image that both take (see `probe_size`).
        class_pixels: labeled training pixels of each class, for `DistillConfig.class_weights`.

    Raises:
        UserError: the losses do not fit the networks (see `DistillationLoss`).
    """
    image = torch.zeros(1, channels_of(student), *size, device=next(student.parameters()).device)
    teacher_device = next(chain(teacher.parameters(), teacher.buffers())).device
    shapes = shapes_of(student, image), shapes_of(teacher, image.to(teacher_device))
    pseudo_labels = PseudoLabels(
        distill.min_confidence, pseudo_label_weights(distill.class_weights, class_pixels)
    )
    return DistillationLoss(
        terms,
        *shapes,
        trust=distill.trust,
        pseudo_labels=pseudo_labels,
        known=teacher.classes.known if isinstance(teacher, ReadyTeacher) else None,
    )


def probe_size(config: RunConfig) -> tuple[int, int]:
    """Size of the image that tells the maps of a run's networks; that of crops for a user's own, which may take one."""
    own = is_own(config.teacher.arch) or is_own(config.student.arch)
    return config.augment.crop if own else (PROBE, PROBE)


def check_aux(terms: DistillationTerms, student: nn.Module, size: tuple[int, int] = (PROBE, PROBE)) -> None:
    """Raise `UserError` if terms are for an auxiliary head and a new student has none; runs it in training mode."""
    options = [option for option, given in terms.by_option.items() if given and option.endswith("aux")]
    if not options:
        return
    device = next(student.parameters()).device
    with torch.no_grad():
        output = student.train()(torch.zeros(2, channels_of(student), *size, device=device))
    if output.aux is None:
        raise UserError(
            f'{options[0]}: the student has no auxiliary head; leave it out ("" where the preset has it), or give a'
            " student that has one and a --loss.aux above 0"
        )


def has_void(teacher: nn.Module) -> bool:
    """Whether some of a teacher's classes are none of the data's, so that its outputs say where it sees these."""
    return isinstance(teacher, ReadyTeacher) and teacher.classes.has_void
