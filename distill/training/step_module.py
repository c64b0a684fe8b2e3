"""The forward pass of a training step: `total = task + λ_kd · kd(student, teacher) + λ_aux · task(aux head)`."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distill.data.sample import Batch
from distill.data.scaling import scaled
from distill.losses.distillation_loss import DistillationLoss, TeacherOutput
from distill.tasks.task import TaskLoss
from distill.training.stage import Stage

DistillationTeacher = Callable[[Batch, Tensor], TeacherOutput]
"""Maps a batch and its normalized images N×C×H×W, both on the device, to the teacher's output."""


@dataclass(frozen=True)
class Distillation:
    """A teacher, the loss that compares a student with it, and the weight of that loss."""

    teacher: DistillationTeacher
    distillation_loss: DistillationLoss
    weight: float = 1.0
    schedule: str = "constant"

    def weights_at(self, step: int, steps: int) -> tuple[float, float]:
        """λ_kd of a step (0-based) for images with labels and without any.

        The first is constant, or decreases to 0 along half a cosine. The second is constant: an image without labels
        teaches nothing but what its teacher sees.
        """
        if self.schedule == "constant":
            return self.weight, self.weight
        return self.weight * 0.5 * (1 + math.cos(math.pi * step / max(1, steps))), self.weight


class TrainStepModule(nn.Module):
    """The network and the trained parts of its distillation loss in one module, to optimize and synchronize together.

    Args:
        network: returns `teacher.pspnet.Output`.
        distillation_loss: compares the student with its teacher; None for a training without a teacher.
        task_loss: loss of the output and of the auxiliary head against the labels.
        aux_weight: λ_aux; 0 leaves the auxiliary head out of the loss.
    """

    def __init__(
        self,
        network: nn.Module,
        distillation_loss: DistillationLoss | None,
        task_loss: TaskLoss,
        aux_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.network = network
        self.distillation_loss = distillation_loss
        self.task_loss = task_loss
        self.aux_weight = aux_weight

    def forward(
        self,
        image: Tensor,
        batch: Batch,
        target: TeacherOutput | None,
        kd_weights: tuple[float, float],
        task_weight: float = 1.0,
    ) -> dict[str, Tensor]:
        """Compute the terms of the loss.

        Args:
            image: normalized images N×C×H×W.
            batch: the labels of these images.
            target: the teacher's output for them; None for a training without a teacher.
            kd_weights: λ_kd of the step, for images with labels and without any.
            task_weight: factor of the losses against labels (see `distill.training.parts`).

        Returns:
            Scalars: "task", "kd" and "aux" where they are computed, and "loss", their weighted sum.
        """
        output = self.network(image)
        terms = {"task": task_weight * self.task_loss(output.logits, batch)}
        total = terms["task"]
        if self.distillation_loss is not None and target is not None:
            labeled, unlabeled = self.distillation_loss.parts(output, target, batch)
            terms["kd"] = labeled + unlabeled
            total = total + kd_weights[0] * labeled + kd_weights[1] * unlabeled
        if output.aux is not None and self.aux_weight:
            terms["aux"] = task_weight * self.task_loss(output.aux, batch)
            total = total + self.aux_weight * terms["aux"]
        return {"loss": total, **terms}


def normalized(batch: Batch, stage: Stage, channels_last: bool) -> Tensor:
    """The images of a batch as input of a network: `(scaled(image) - mean) / std`, channels-last or contiguous.

    Args:
        batch: its images are in raw units.
        stage: has scale, mean and deviation.
        channels_last: the memory format.
    """
    image = (scaled(batch.image, stage.scale) - stage.mean.to(batch.image)) / stage.std.to(batch.image)
    return image.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
