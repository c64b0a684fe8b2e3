"""The inputs of a training, and the error that interrupts it."""

import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from deploy.bundle.pixel_scale import LINEAR, PixelScale
from deploy.errors import UserError
from distill.data.order import Order
from distill.data.view import View
from distill.tasks.task import TaskLoss
from distill.training.checkpoint import Meta

Evaluate = Callable[[nn.Module], dict[str, float]]
"""Computes scores of a network on the validation split. The first score, for which higher is better, selects the best
checkpoint. All processes call it."""


class Interrupted(UserError):
    """A signal stopped the training, after its state was saved for `--resume`; exits with 128 + the signal's number."""

    def __init__(self, message: str, number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


@dataclass(frozen=True)
class Stage:
    """The data, losses and folder of one training."""

    name: str
    folder: Path
    view: View
    mean: Tensor
    """Mean of each channel, C×1×1, as in `distill.data.stats.Stats`; normalizes the images for student and teacher
    alike."""
    std: Tensor
    """Standard deviation of each channel, C×1×1."""
    task_loss: TaskLoss
    """Loss of the output and of the auxiliary head against the labels."""
    seed: int
    aux: float = 0.4
    """Weight λ_aux of the auxiliary head."""
    evaluate: Evaluate | None = None
    order: Order | None = None
    """Which images make up a batch; None: all images of the view in turn."""
    metadata: Meta = field(default_factory=dict)
    """Description of the network in its checkpoint (see `distill.training.checkpoint_metadata`)."""
    scale: PixelScale = LINEAR
    """What happens to pixels before `mean` and `std` normalize them."""
