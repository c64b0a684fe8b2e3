"""The one training loop: teacher, undistilled baseline and distilled student differ only in what they are given.

Resuming is exact because nothing random depends on history: the samples of a batch, their augmentation and dropout are
functions of (seed, step), as the schedule's learning rate is, and the rest is in the checkpoint. That makes it
bit-exact on a CPU; a GPU adds the order of its atomic additions.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from deploy.errors import UserError
from distill.config import TrainConfig
from distill.data.loader import Shard, train_batches
from distill.data.sample import Batch
from distill.data.seeding import generator
from distill.training.activation_checkpointing import checkpointed
from distill.training.distributed import any_process, sum_over_processes
from distill.training.log import TrainLog
from distill.training.optim import build_optimizer, learning_rate, set_learning_rate
from distill.training.signals import stop_requests
from distill.training.stage import Interrupted, Stage
from distill.training.step_module import Distillation, TrainStepModule, normalized
from distill.training.sync_norm import step_norms, sync_norms
from distill.training.tracking import track
from distill.training.train_state import TrainState


def train(
    network: nn.Module,
    stage: Stage,
    config: TrainConfig,
    accelerator: Accelerator,
    *,
    distillation: Distillation | None = None,
    resume: bool = False,
) -> float:
    """Train `network` in place and leave `best.safetensors` and `last.safetensors` in the stage's folder.

    Args:
        network: returns `teacher.pspnet.Output`; on return it holds the best (or averaged) weights.
        stage: data, losses and name of the training.
        config: optimizer, schedule, length.
        accelerator: device, arithmetic and processes.
        distillation: the teacher, and the losses that compare the two; None trains on the labels alone.
        resume: continue from `last.safetensors` where it exists; bit-exact on the same CPU and settings.

    Returns:
        The seconds that the stage took, those before a resume included.

    Raises:
        UserError: non-finite loss (naming the images), settings that do not fit the checkpoint.
        Interrupted: a signal asked to stop; the state is saved.
    """
    training = prepared(network, stage, config, accelerator, distillation)
    state = training.state
    start = state.restore() if resume else 0
    batches = training.batches(start)
    with (
        training.open_log(start) as log,
        stop_requests() as asked,
        checkpointed(network, config.checkpoint_activations),
    ):
        for step in range(start, config.steps):
            terms = training.step(step, batches)
            done = step + 1
            stopping = any_process(asked(), accelerator)
            training.record(log, done, terms)
            saving = stopping or done == config.steps or done % config.checkpoint_every == 0
            if saving and accelerator.is_main_process:
                state.save(done)
            if stopping:
                accelerator.wait_for_everyone()
                raise Interrupted(f"stopped after step {done} of {stage.name}; continue with --resume")
    return state.finish()


@dataclass(frozen=True)
class Training:
    """A training in progress: what every step needs. `prepared` makes one."""

    stage: Stage
    config: TrainConfig
    accelerator: Accelerator
    distillation: Distillation | None
    model: nn.Module
    """The prepared `TrainStepModule`."""
    optimizer: torch.optim.Optimizer
    state: TrainState

    def batches(self, start: int) -> Iterator[Batch]:
        """This process' share of the micro-batches from step `start` to the last."""
        config, process = self.config, self.accelerator
        shard = Shard(process.process_index, process.num_processes, config.accumulate)
        left, seed = config.steps - start, self.stage.seed
        return train_batches(
            self.stage.view, config.batch_size, seed, start, left, workers=config.workers, shard=shard
        )

    def open_log(self, start: int) -> AbstractContextManager[TrainLog | None]:
        """The log from step `start`, which the main process writes; None in the others."""
        if not self.accelerator.is_main_process:
            return nullcontext()
        stage, config, tracker = self.stage, self.config, partial(track, self.accelerator)
        return TrainLog(stage.folder, stage.name, start, config.steps, config.batch_size, tracker)

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        return learning_rate(self.config, step) * self.state.plateau.share

    def step(self, step: int, batches: Iterator[Batch]) -> dict[str, Tensor]:
        """One optimizer step over `accumulate` micro-batches.

        Each micro-batch of each process weighs as many pixels as are valid in it, so the step is that of the whole
        batch. (With class weights the parts weigh by pixels all the same, so the step then depends a little on how the
        batch is divided.)

        Returns:
            The detached loss terms, so weighted: their sum over all processes is that of the batch; {} where no pixel
            is valid anywhere and nothing has changed: no weight, momentum or norm.
        """
        config, processes = self.config, self.accelerator.num_processes
        seed = generator("dropout", self.stage.seed, step, self.accelerator.process_index).integers(2**63)
        torch.manual_seed(int(seed))
        set_learning_rate(self.optimizer, self.rate(step))
        self.model.train()
        micro = [next(batches) for _ in range(config.accumulate)]
        counts = [int(batch.valid.sum()) for batch in micro]
        totals = sum_over_processes(counts, self.accelerator)
        if sum(totals) == 0:
            return {}
        # Left out by all processes or by none, who would wait for its gradients and statistics.
        parts = [part for part in zip(micro, counts, totals, strict=True) if part[2]]
        sums: dict[str, Tensor] = {}
        for index, (batch, count, anywhere) in enumerate(parts):
            unfinished = index + 1 < len(parts)
            share = count / sum(totals)
            with self.accelerator.no_sync(self.model) if unfinished else nullcontext():
                terms = self.backward(step, batch, share, anywhere == batch.valid.numel() * processes)
            for name, term in terms.items():
                sums[name] = sums.get(name, 0.0) + term.detach() * share
        if config.clip:
            self.accelerator.clip_grad_norm_(self.model.parameters(), config.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.state.stepped()
        return sums

    def backward(
        self, step: int, batch: Batch, share: float = 1.0, complete: bool = False
    ) -> dict[str, Tensor]:
        """Add the gradients of a micro-batch, and return the terms of its loss.

        Args:
            step: 0-based.
            batch: the micro-batch of this process.
            share: its part of the step's valid pixels.
            complete: every pixel of the micro-batch is valid, in all processes.
        """
        valid = batch.valid if self.config.masked_norm and not complete else None
        with step_norms(self.accelerator, self.config.masked_norm, valid):
            terms = self.loss_terms(step, batch)
        # gradients are averaged over processes, not summed
        self.accelerator.backward(terms["loss"] * (share * self.accelerator.num_processes))
        return terms

    def loss_terms(self, step: int, batch: Batch) -> dict[str, Tensor]:
        """The terms of the loss of a batch (see `TrainStepModule`), after asking the teacher.

        Raises:
            UserError: the loss is not finite; the message names the images.
        """
        stage, config, distillation = self.stage, self.config, self.distillation
        moved = batch.to(self.accelerator.device, non_blocking=True)
        image = normalized(moved, stage.mean, stage.std, config.channels_last)
        target = distillation.teacher(moved, image) if distillation else None
        weight = distillation.weight_at(step, config.steps) if distillation else 0.0
        terms = self.model(image, moved, target, weight)
        if not torch.isfinite(terms["loss"]):
            raise UserError(
                f"{stage.name}: the loss is {terms['loss'].item()} on the batch {', '.join(batch.ids)};"
                " lower the learning rate, set --precision fp32, or look at these images"
            )
        return terms

    def record(self, log: TrainLog | None, done: int, terms: dict[str, Tensor]) -> None:
        """Log and evaluate after step `done` where it is time to: all compute, the process with the log writes."""
        config, state, last = self.config, self.state, done == self.config.steps
        if log is not None:
            log.advance()
        if terms and (last or done % config.log_every == 0):
            terms = cast("dict[str, Tensor]", self.accelerator.reduce(terms))
            if log is not None:
                rate = {"lr": self.rate(done - 1)}
                log.write(done, {name: term.item() for name, term in terms.items()} | rate)
        if last or (config.eval_every and done % config.eval_every == 0):
            scores = self.stage.evaluate(state.evaluated) if self.stage.evaluate else {}
            if scores and config.schedule == "plateau" and done > config.warmup:
                state.plateau.observe(next(iter(scores.values())), config)
            if log is not None:
                log.write_scores(done, scores)
                state.keep_if_best(done, scores)


def prepared(
    network: nn.Module,
    stage: Stage,
    config: TrainConfig,
    accelerator: Accelerator,
    distillation: Distillation | None,
) -> Training:
    """A training that has not begun: the network as a `TrainStepModule`, its optimizer and its state."""
    memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
    network.to(memory_format=memory_format)
    accelerator.free_memory()  # let go of the models and optimizers of earlier stages
    # accelerate replaces the forward method of what it prepares by one under autocast: `network` itself stays what it
    # is for evaluation, averaging and export.
    distillation_loss = distillation.distillation_loss if distillation else None
    step_module = TrainStepModule(network, distillation_loss, stage.task_loss, stage.aux)
    synced = sync_norms(step_module, accelerator, config.masked_norm)
    model, optimizer = accelerator.prepare(synced, build_optimizer(step_module, config))
    if config.compile:
        model.compile()  # in place: `network` stays plain, and so do the names of its weights
    state = TrainState(
        stage.folder,
        network,
        optimizer.optimizer,
        accelerator,
        config.steps,
        config.ema,
        distillation_loss,
        stage.metadata,
    )
    return Training(stage, config, accelerator, distillation, model, optimizer, state)
