"""From a configuration to a distillation: the losses, the teachers and where their outputs come from."""

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import nn

from distill.config import DistillConfig, RunConfig
from distill.data.splits import Splits
from distill.data.stats import Stats
from distill.distillation.teachers import cached_teacher, identity_of, online_teacher
from distill.distillation.weight_transfer import init_from_teacher
from distill.losses.distillation_loss import DistillationLoss, features_of, parse_aux_terms, shapes_of
from distill.losses.expression import Term, parse_terms
from distill.training.checkpoint_metadata import network_from
from distill.training.log import say
from distill.training.loop import Stage
from distill.training.step_module import Distillation
from student.zoo import channels_of

PROBE = 64
"""Side of the image that tells the channels of a network's features."""


def build_distillation(
    teacher: nn.Module,
    student: nn.Module,
    stage: Stage,
    config: RunConfig,
    accelerator: Accelerator,
    data: tuple[Splits, Stats],
    terms: Sequence[Term] | None = None,
) -> Distillation:
    """The distillation that `config.distill` describes; its view bank is the stage's.

    `terms` replace those of `config.distill.loss`. Raises UserError as `DistillationLoss`, `network_from` and
    `cached_teacher` do.
    """
    distill = config.distill
    terms = parse_terms(distill.loss) if terms is None else terms
    distillation_loss = build_distillation_loss(distill, terms, teacher, student).to(accelerator.device)
    networks = [teacher, *(network_from(path, *data) for path in distill.teachers)]
    channels_last = config.student_train.channels_last
    teach = online_teacher(
        networks,
        accelerator,
        features=features_of(terms),
        combine=distill.combine,
        channels_last=channels_last,
    )
    if stage.view.views:
        folder = distill.cache or config.out / "teacher-cache"
        identity = identity_of(networks, distill.combine)
        teach = cached_teacher(
            teach, stage, folder, distill.cache_dtype, accelerator, identity, channels_last
        )
    return Distillation(teach, distillation_loss, distill.weight, distill.schedule)


def init_student(teacher: nn.Module, student: nn.Module, distill: DistillConfig) -> None:
    """Give a new student the weights of its teacher, where the configuration wants it and the two are of one family."""
    if distill.start == "teacher" and (share := init_from_teacher(student, teacher)):
        say(f"student: starts from its teacher's weights ({share:.0%} of its own)")


def build_distillation_loss(
    distill: DistillConfig, terms: Sequence[Term], teacher: nn.Module, student: nn.Module
) -> DistillationLoss:
    """The losses of a configuration for two networks. Raises UserError where they do not fit (see `DistillationLoss`)."""
    image = torch.zeros(1, channels_of(student), PROBE, PROBE, device=next(student.parameters()).device)
    teacher_device = next(teacher.parameters()).device
    shapes = shapes_of(student, image), shapes_of(teacher, image.to(teacher_device))
    return DistillationLoss(terms, parse_aux_terms(distill.aux), *shapes, trust=distill.trust)
