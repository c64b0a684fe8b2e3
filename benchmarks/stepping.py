"""Single training steps, to be timed: of the bare network, or with data loading and a teacher."""

import time

from accelerate import Accelerator
from torch import nn

from distill.config import TrainConfig
from distill.data.loader import train_batches
from distill.training.loop import prepared
from distill.training.parts import Part
from distill.training.stage import Stage
from distill.training.step_module import Distillation


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
        self.loading, self.optimize = loading, optimize
        self.training = prepared(network, stage, training, accelerator, distillation)
        self.batches = train_batches(stage.view, training.batch_size, 0, 0, 10**9, order=stage.order)
        self.batch = next(self.batches)

    def step(self) -> float:
        """Take a step and return its seconds."""
        began = time.perf_counter()
        if self.loading:
            self.batch = next(self.batches)
        self.training.model.train()
        self.training.backward(0, Part(self.batch))
        if self.optimize:
            self.training.optimizer.step()
            self.training.state.stepped()  # averages the weights, if that is asked for
        seconds = time.perf_counter() - began
        self.training.optimizer.zero_grad()
        return seconds
