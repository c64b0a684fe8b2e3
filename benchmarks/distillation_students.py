"""Students of `benchmarks/distillation.py`, ready to train: network, stage and distillation of one method and seed."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from distill.config import RunConfig
from distill.data.sample import Batch, stack
from distill.distillation.build import build_distillation, init_student
from distill.losses.distillation_loss import TeacherOutput
from distill.pipeline.networks import new_network
from distill.pipeline.stages import Trained, training_stage
from distill.run_context import RunContext, terms_of
from distill.training.stage import Stage
from distill.training.step_module import Distillation, DistillationTeacher, normalized


class PreparedStudent(NamedTuple):
    """A student before its first step."""

    network: nn.Module
    stage: Stage
    distillation: Distillation | None
    """None for the baseline, which trains without a teacher."""


@dataclass(frozen=True)
class StudentFactory:
    """What the students of all methods share: the run's context, the teacher and the folder of the benchmark."""

    context: RunContext
    teacher: Trained
    folder: Path

    def prepare(self, run: RunConfig, name: str, seed: int, plain: bool = False) -> PreparedStudent:
        """A student for `run`; its first weights and its data order depend on `seed` alone.

        Args:
            run: configuration of one method.
            name: name of the training's stage.
            seed: seed of the weights, of the data order and, unless teacher outputs are cached, of the augmentation.
            plain: the teacher sees crops without color jitter.
        """
        run = replace(run, distill=replace(run.distill, cache=self._cache_folder(run)))
        distills = run.distill.weight > 0
        views = run.distill.views if distills else 0
        # cached views are the same for all seeds
        context = self.context.with_config(run if views else replace(run, seed=seed))
        torch.manual_seed(seed)
        network = new_network(run, run.student, context.splits, context.task)
        init_student(self.teacher.network, network, run.distill)
        stage = replace(training_stage(context, name, run.student, views, distills), seed=seed)
        if not distills:
            return PreparedStudent(network, stage, None)
        distillation = build_distillation(self.teacher.network, network, stage, context)
        if plain and run.augment.photometric:
            distillation = replace(
                distillation, teacher=_on_plain_colors(distillation.teacher, stage, context)
            )
        return PreparedStudent(network, stage, distillation)

    def _cache_folder(self, run: RunConfig) -> Path:
        """The folder of the cached teacher outputs: one for each set of maps, of teachers and of views."""
        teachers = f"{1 + len(run.distill.teachers)}-teachers" if run.distill.teachers else ""
        names = "-".join(filter(None, ["logits", *sorted(terms_of(run).features), teachers]))
        return self.folder / "teacher-cache" / f"{names}-{run.distill.views}"


def _on_plain_colors(teacher: DistillationTeacher, stage: Stage, context: RunContext) -> DistillationTeacher:
    """The teacher on the crops of a batch as they are without color jitter."""
    config = context.config
    config = replace(config, augment=replace(config.augment, photometric=_NO_JITTER))
    view = training_stage(context.with_config(config), "plain", config.student, distills=True).view

    def teach(batch: Batch, _: Tensor) -> TeacherOutput:
        view.preload(stage.view)
        plain = stack([view[key] for key in batch.keys]).to(batch.image.device)
        return teacher(plain, normalized(plain, stage, config.student_train.channels_last))

    return teach


_NO_JITTER = 1e-9
"""Changes a pixel by less than 1e-3, but draws the random numbers that come before those of the flips."""
