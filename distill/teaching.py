"""From a configuration to a distillation: the losses, the teachers and where their outputs come from."""

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import nn

from distill.config import DistillConfig, RunConfig
from distill.data.splits import Splits
from distill.data.stats import Stats
from distill.distiller import Distiller, features_of, parse_aux_terms, shapes_of
from distill.inherit import inherit
from distill.log import say
from distill.losses.expression import Term, parse_terms
from distill.origin import network_from
from distill.teachers import cached_teacher, identity_of, online_teacher
from distill.train import Stage
from distill.trainee import Distillation
from student.zoo import channels_of

PROBE = 64
"""Side of the image that tells the channels of a network's features."""


def distil_from(
    teacher: nn.Module,
    student: nn.Module,
    stage: Stage,
    config: RunConfig,
    accelerator: Accelerator,
    data: tuple[Splits, Stats],
    terms: Sequence[Term] | None = None,
) -> Distillation:
    """The distillation that `config.distill` describes; its view bank is the stage's.

    `terms` replace those of `config.distill.loss`. Raises UserError as `Distiller`, `network_from` and
    `cached_teacher` do.
    """
    distill = config.distill
    terms = parse_terms(distill.loss) if terms is None else terms
    distiller = new_distiller(distill, terms, teacher, student).to(accelerator.device)
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
    return Distillation(teach, distiller, distill.weight, distill.schedule)


def start_from(teacher: nn.Module, student: nn.Module, distill: DistillConfig) -> None:
    """Give a new student the weights of its teacher, where the configuration wants it and the two are of one family."""
    if distill.start == "teacher" and (share := inherit(student, teacher)):
        say(f"student: starts from its teacher's weights ({share:.0%} of its own)")


def new_distiller(
    distill: DistillConfig, terms: Sequence[Term], teacher: nn.Module, student: nn.Module
) -> Distiller:
    """The losses of a configuration for two networks. Raises UserError where they do not fit (see `Distiller`)."""
    image = torch.zeros(1, channels_of(student), PROBE, PROBE, device=next(student.parameters()).device)
    teacher_device = next(teacher.parameters()).device
    shapes = shapes_of(student, image), shapes_of(teacher, image.to(teacher_device))
    return Distiller(terms, parse_aux_terms(distill.aux), *shapes, trust=distill.trust)
