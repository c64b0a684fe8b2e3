"""Single training steps, to be timed: of the bare network, or with loading and a teacher."""

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

    from distill.config import TrainConfig
    from distill.train import Stage
    from distill.trainee import Distillation


class Stepper:
    """A network in training that takes one step at a time, as `distill.train.train` does but for logs and checkpoints.

    With `loading` each step loads and augments its batch, otherwise one batch serves all; without `optimise` it ends
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
        optimise: bool = True,
    ) -> None:
        import torch

        from distill.data.loader import train_batches
        from distill.optim import build_optimizer
        from distill.trainee import Trainee

        self.stage, self.training, self.accelerator = stage, training, accelerator
        self.distillation, self.loading, self.optimise = distillation, loading, optimise
        network.to(memory_format=torch.channels_last if training.channels_last else torch.contiguous_format)
        distiller = distillation.distiller if distillation else None
        trainee = Trainee(network, distiller, stage.loss, stage.class_weights, stage.task)
        self.model, self.optimizer = accelerator.prepare(trainee, build_optimizer(trainee, training))
        self.batches = train_batches(stage.view, training.batch_size, 0, 0, 10**9)
        self.batch = next(self.batches)

    def step(self) -> float:
        """Take a step, and return its seconds."""
        from distill.sync_norm import step_norms
        from distill.train import loss_terms

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
        if self.optimise:
            self.optimizer.step()
        seconds = time.perf_counter() - began
        self.optimizer.zero_grad()
        return seconds
