"""Single training steps, to be timed: of the bare network, or with data loading and a teacher."""

import time

import torch
from accelerate import Accelerator
from torch import nn

from distill.config import TrainConfig
from distill.data.loader import train_batches
from distill.training.loop import Stage, loss_terms
from distill.training.optim import build_optimizer
from distill.training.step_module import Distillation, TrainStepModule
from distill.training.sync_norm import step_norms


class Stepper:
    """Trains a network step by step, as `distill.training.loop.train` does but without logs and checkpoints."""

    def __init__(
        self,
        network: nn.Module,
        stage: Stage,
        training: TrainConfig,
        accelerator: Accelerator,
        distillation: Distillation | None = None,
        *,
        loading: bool = True,
        optimize: bool = True,
    ) -> None:
        """Prepare the network and load the first batch.

        Args:
            network: network to train.
            stage: data and losses.
            training: batch size, arithmetic and optimizer.
            accelerator: device and mixed precision.
            distillation: teacher and its losses; None to train without.
            loading: load and augment a new batch in each step; otherwise reuse the first one.
            optimize: end each step with the optimizer; otherwise with the backward pass.
        """
        self.stage, self.training, self.accelerator = stage, training, accelerator
        self.distillation, self.loading, self.optimize = distillation, loading, optimize
        network.to(memory_format=torch.channels_last if training.channels_last else torch.contiguous_format)
        distillation_loss = distillation.distillation_loss if distillation else None
        step_module = TrainStepModule(network, distillation_loss, stage.loss, stage.class_weights, stage.task)
        self.model, self.optimizer = accelerator.prepare(step_module, build_optimizer(step_module, training))
        self.batches = train_batches(stage.view, training.batch_size, 0, 0, 10**9)
        self.batch = next(self.batches)

    def step(self) -> float:
        """Take a step and return its seconds."""
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
