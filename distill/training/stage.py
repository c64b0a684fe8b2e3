"""What one training works on, and how it ends early."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from deploy.errors import UserError
from distill.data.view import View
from distill.tasks.task import TaskLoss
from distill.training.checkpoint import Meta

Evaluate = Callable[[nn.Module], dict[str, float]]
"""Scores of a network on the validation split; the first, of which more is better, decides which checkpoint is best. All
processes call it."""


class Interrupted(UserError):
    """Training was stopped by a signal after saving a resumable state."""

    exit_code = 130


@dataclass(frozen=True)
class Stage:
    """What one training works on."""

    name: str
    folder: Path
    view: View
    mean: Tensor
    """Of each channel, C×1×1 in raw units; images are normalized by it on their way into student and teacher alike."""
    std: Tensor
    """Deviation of each channel, C×1×1."""
    task_loss: TaskLoss
    """Of the output and of the auxiliary head."""
    seed: int
    aux: float = 0.4
    """Weight λ_aux of the auxiliary head."""
    evaluate: Evaluate | None = None
    metadata: Meta = field(default_factory=dict)
    """What a checkpoint says of its network besides its scores (see `distill.training.checkpoint_metadata`)."""
