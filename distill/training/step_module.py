"""What one training step computes: `total = task + λ_kd · kd(student, teacher) + λ_aux · task(aux head)`."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distill.config import LossConfig
from distill.data.sample import Batch
from distill.losses.distillation_loss import DistillationLoss, TeacherOutput
from distill.losses.registry import SEGMENTATION_LOSSES
from distill.losses.task_loss import parse_task_terms, task_loss, task_methods

Teacher = Callable[[Batch, Tensor], TeacherOutput]
"""From a batch and its normalized images N×C×H×W, both on the device, to what the teacher says of them."""


@dataclass(frozen=True)
class Distillation:
    """A teacher and what a student learns from it."""

    teacher: Teacher
    distillation_loss: DistillationLoss
    weight: float = 1.0
    schedule: str = "constant"

    def weight_at(self, step: int, steps: int) -> float:
        """λ_kd of a step (0-based): constant, or falling to 0 along half a cosine."""
        if self.schedule == "constant":
            return self.weight
        return self.weight * 0.5 * (1 + math.cos(math.pi * step / max(1, steps)))


class TrainStepModule(nn.Module):
    """The student, and what its distillation trains beside it, as one module: what is optimized and synchronized.

    `forward` returns the terms of the loss, each a scalar, `loss` their weighted sum. `target` is None for a training
    without teacher; `kd_weight` is the λ_kd of the step.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        distillation_loss: DistillationLoss | None,
        loss: LossConfig,
        class_weights: Tensor | None = None,
        task: str = "segmentation",
    ) -> None:
        super().__init__()
        self.network = network
        self.distillation_loss = distillation_loss
        self.methods = task_methods(task)
        self.task = parse_task_terms(loss.task, self.methods)
        self.aux_weight = loss.aux
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(
        self, image: Tensor, batch: Batch, target: TeacherOutput | None, kd_weight: float
    ) -> dict[str, Tensor]:
        output = self.network(image)
        terms = {"task": self._task_loss(output.logits, batch)}
        total = terms["task"]
        if self.distillation_loss is not None and target is not None:
            terms["kd"] = self.distillation_loss(output, target, batch)
            total = total + kd_weight * terms["kd"]
        if output.aux is not None and self.aux_weight:
            terms["aux"] = self._task_loss(output.aux, batch)
            total = total + self.aux_weight * terms["aux"]
        return {"loss": total, **terms}

    def _task_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        weights = (self.class_weights,) if self.methods is SEGMENTATION_LOSSES else ()
        return task_loss(self.task, logits, batch.label, batch.valid, *weights, methods=self.methods)


def normalized(batch: Batch, mean: Tensor, std: Tensor, channels_last: bool) -> Tensor:
    """The images of a batch as networks take them: `(image - mean) / std`, in their memory format."""
    image = (batch.image - mean.to(batch.image)) / std.to(batch.image)
    return image.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
