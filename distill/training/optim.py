"""Optimizers and learning-rate schedules.

The rate is a function of the step alone, so resuming needs no state; only `Plateau` has one, which checkpoints hold.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from distill.config import TrainConfig

POLY_POWER = 0.9
"""Exponent of the poly schedule in the PSPNet paper."""

FUSED_DEVICES = ("cpu", "cuda")
"""Devices on which torch has fused optimizers, which update a parameter in one pass."""

HEADS = ("classifier", "aux_head")
"""Children of a network without a `backbone` that learn at the heads' rate."""


def build_optimizer(step_module: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Build SGD, AdamW or RMSprop; biases and norms have no weight decay, and heads `head_lr_factor` times the rate.

    RMSprop adds the weight decay to the gradients (L2), as SGD does. Its momentum of 0.9 makes steps ten times as long
    as the rate alone would.

    AdamW is fused where torch supports it. SGD is not: with a loss scaler (fp16), a fused first step that the scaler
    skips leaves the momentum uninitialized, and the weights become NaN. A fused optimizer expects gradients and state
    in the memory format of the parameter: autograd ensures the former and `restore_optimizer` the latter, so the memory
    format of parameters must not change afterwards.

    Args:
        step_module: a `TrainStepModule`. If its network has a `backbone`, all parameters outside count as heads (of the
            distillation's adapters, too); otherwise those of `HEADS` do.
        config: optimizer, rates and weight decay.
    """
    groups = [
        {"params": parameters, "weight_decay": config.weight_decay * decays, "lr_factor": factor}
        for (decays, factor), parameters in _grouped(
            step_module.named_parameters(), config.head_lr_factor
        ).items()
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, lr=config.lr, momentum=config.momentum)
    fused = all(p.dtype == torch.float32 and p.device.type in FUSED_DEVICES for p in step_module.parameters())
    return torch.optim.AdamW(groups, lr=config.lr, fused=fused)


def _grouped(
    parameters: Iterable[tuple[str, nn.Parameter]], head_factor: float
) -> dict[tuple[bool, float], list[nn.Parameter]]:
    named = list(parameters)
    has_backbone = any(name.startswith("network.backbone.") for name, _ in named)
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in named:
        owner, _, rest = name.partition(".")
        child = rest.partition(".")[0] if owner == "network" else ""
        body = child == "backbone" if has_backbone else child and child not in HEADS
        factor = 1.0 if body else head_factor
        groups.setdefault((parameter.ndim > 1, factor), []).append(parameter)
    return groups


def learning_rate(config: TrainConfig, step: int) -> float:
    """The rate of `step` (0-based): linear warm-up, then poly or cosine decay to 0 over the remaining steps.

    With the schedule `plateau` it stays constant after the warm-up; `Plateau.share` is applied on top.
    """
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    if config.schedule == "plateau":
        return config.lr
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    if config.schedule == "poly":
        return config.lr * (1 - progress) ** POLY_POWER
    return config.lr * 0.5 * (1 + math.cos(math.pi * progress))


def moving_average(decay: float) -> Callable[..., None]:
    """An exponential moving average of weights for `torch.optim.swa_utils.AveragedModel`, with a warm-up.

    The n-th update of the first copy has the decay min(decay, (1 + n) / (10 + n)), as TensorFlow's
    `ExponentialMovingAverage(num_updates=n)`, so that a short training does not end with its first weights.

    Args:
        decay: in 0..1, of all later updates.
    """

    @torch.no_grad()
    def update(averages: list[Tensor], weights: list[Tensor], count: Tensor) -> None:
        n = float(count)
        get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))(averages, weights, count)

    return update


@dataclass
class Plateau:
    """Reduces the rate when the validation score stops improving.

    It behaves like torch's `ReduceLROnPlateau(mode="max", threshold=0)`. All processes see the same scores (see
    `distill.export.evaluate`), so they make the same decisions.
    """

    share: float = 1.0
    """Current factor on the rate of the schedule."""
    best: float = -math.inf
    """The highest score so far."""
    waited: int = 0
    """Number of evaluations in a row without improvement."""

    def observe(self, score: float, config: TrainConfig) -> None:
        """Update the factor with a new validation score."""
        if score > self.best:
            self.best, self.waited = score, 0
            return
        self.waited += 1
        if self.waited > config.plateau_patience:
            self.share, self.waited = self.share * config.plateau_factor, 0


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of each parameter group to `rate` times its `lr_factor`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_factor"]
