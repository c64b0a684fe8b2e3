"""Single training steps, to be timed: of the bare network, or with loading and a teacher."""

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

    from distill.config import TrainConfig
    from distill.training.loop import Stage
    from distill.training.step_module import Distillation


class Stepper:
    """A network in training that takes one step at a time, as `distill.training.loop.train` does but for logs and checkpoints.

    With `loading` each step loads and augments its batch, otherwise one batch serves all; without `optimize` it ends
    with the backward pass.
    """

    def __init__(
        self,
        network: "nn.Module",
        stage: "Stage",
        training: "TrainConfig",
        accelerator: "Accelerator",
        distillation: "Distillation | None" = None,
        *,
        loading: bool = True,
        optimize: bool = True,
    ) -> None:
        import torch

        from distill.data.loader import train_batches
        from distill.training.optim import build_optimizer
        from distill.training.step_module import TrainStepModule

        self.stage, self.training, self.accelerator = stage, training, accelerator
        self.distillation, self.loading, self.optimize = distillation, loading, optimize
        network.to(memory_format=torch.channels_last if training.channels_last else torch.contiguous_format)
        distillation_loss = distillation.distillation_loss if distillation else None
        step_module = TrainStepModule(network, distillation_loss, stage.loss, stage.class_weights, stage.task)
        self.model, self.optimizer = accelerator.prepare(step_module, build_optimizer(step_module, training))
        self.batches = train_batches(stage.view, training.batch_size, 0, 0, 10**9)
        self.batch = next(self.batches)

    def step(self) -> float:
        """Take a step, and return its seconds."""
        from distill.training.loop import loss_terms
        from distill.training.sync_norm import step_norms

        began = time.perf_counter()
        if self.loading:
            self.batch = next(self.batches)
        model = self.model.train()
        masked = self.training.masked_norm
        with step_norms(self.accelerator, masked, self.batch.valid if masked else None):
            terms = loss_terms(
                model, self.stage, self.training, self.accelerator, self.distillation, 0, self.batch
            )
        self.accelerator.backward(terms["loss"])
        if self.optimize:
            self.optimizer.step()
        seconds = time.perf_counter() - began
        self.optimizer.zero_grad()
        return seconds
