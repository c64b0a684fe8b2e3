"""Optimisers and learning-rate schedules.

The rate is a function of the step alone, so resuming needs no state; only `Plateau` has one, which checkpoints keep.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from distill.config import TrainConfig

POLY_POWER = 0.9
"""Exponent of the poly schedule in the PSPNet paper."""

FUSED_DEVICES = ("cpu", "cuda")
"""Where torch updates a parameter in one pass instead of one for each operation."""


def build_optimizer(step_module: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD, AdamW or RMSprop; biases and norms are not decayed, heads learn `head_lr_factor` times as fast.

    RMSprop's decay of weights is part of their gradients (L2), as SGD's is. Its momentum of 0.9 makes steps ten times
    as long as those of its rate alone.

    One fused pass over a parameter where torch has it (not for RMSprop). It trusts that gradients and state lie in
    memory as the parameter does: autograd sees to the first, `restore_optimizer` to the second, and nobody may change
    it afterwards.
    """
    groups = [
        {"params": parameters, "weight_decay": config.weight_decay * decays, "lr_factor": factor}
        for (decays, factor), parameters in _grouped(
            step_module.named_parameters(), config.head_lr_factor
        ).items()
    ]
    fused = all(p.dtype == torch.float32 and p.device.type in FUSED_DEVICES for p in step_module.parameters())
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=fused)
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, lr=config.lr, momentum=config.momentum)
    return torch.optim.AdamW(groups, lr=config.lr, fused=fused)


def _grouped(
    parameters: Iterable[tuple[str, nn.Parameter]], head_factor: float
) -> dict[tuple[bool, float], list[nn.Parameter]]:
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in parameters:
        factor = 1.0 if name.startswith("network.backbone.") else head_factor
        groups.setdefault((parameter.ndim > 1, factor), []).append(parameter)
    return groups


def learning_rate(config: TrainConfig, step: int) -> float:
    """The rate of `step` (0-based): linear warm-up, then poly or cosine decay to 0 over the remaining steps.

    With the schedule `plateau` the rate stays, for `Plateau.share` to be multiplied with.
    """
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    if config.schedule == "plateau":
        return config.lr
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    if config.schedule == "poly":
        return config.lr * (1 - progress) ** POLY_POWER
    return config.lr * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass
class Plateau:
    """By how much the rate has fallen since validation no longer improves.

    It decides as torch's `ReduceLROnPlateau(mode="max", threshold=0)`. All processes see the same scores (see
    `distill.export.evaluate`), so each comes to the same decision.
    """

    share: float = 1.0
    """Of the schedule's rate."""
    best: float = -math.inf
    """The highest score so far."""
    waited: int = 0
    """Evaluations in a row that were no better."""

    def observe(self, score: float, config: TrainConfig) -> None:
        """Take note of a validation score."""
        if score > self.best:
            self.best, self.waited = score, 0
            return
        self.waited += 1
        if self.waited > config.plateau_patience:
            self.share, self.waited = self.share * config.plateau_factor, 0


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give each parameter group its share of `rate`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_factor"]
