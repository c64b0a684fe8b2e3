"""The training loop of the teacher, the baseline without distillation, and the distilled student.

Resuming is exact because no random number depends on earlier steps: the samples of a batch, their augmentation and
dropout are functions of (seed, step), like the learning rate, and the checkpoint has everything else. Resuming is
bit-exact on a CPU; on a GPU the order of atomic additions varies.
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
from distill.training.depthwise import fast_depthwise
from distill.training.distributed import sum_unless_stopped, wait_for_all
from distill.training.log import TrainLog
from distill.training.optim import build_optimizer, learning_rate, set_learning_rate
from distill.training.parts import Part, loaded
from distill.training.signals import StoppedSafely, StopRequests, stop_requests
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
    """Train `network` in place and write `best.safetensors` and `last.safetensors` to the stage's folder.

    Args:
        network: returns `teacher.pspnet.Output`; on return it holds the best (or averaged) weights.
        stage: data, losses and name of the training.
        config: optimizer, schedule, length.
        accelerator: device, precision and processes.
        distillation: the teacher, and the losses that compare it with the student; None = train on labels only.
        resume: continue from `last.safetensors` if it exists; bit-exact on the same CPU with the same settings.

    Returns:
        The seconds that the stage took, including those before a resume.

    Raises:
        UserError: the loss is not finite (the message names the images), or the settings do not fit the checkpoint.
        Interrupted: a signal requested a stop, in this process or another; it ends a step, but interrupts loading and
            evaluation; the state is saved.
        Stopped: a second signal; the state is that of the last checkpoint.
    """
    training = prepared(network, stage, config, accelerator, distillation)
    state = training.state
    start = state.restore() if resume else 0
    with (
        training.open_log(start) as log,
        stop_requests() as stop,
        checkpointed(network, config.checkpoint_activations),
    ):
        if log is not None and resume:
            state.count(log.spent)
        _run(training, start, log, stop)
    return state.finish()


@dataclass(frozen=True)
class Training:
    """Everything that a training step needs; created by `prepared`."""

    stage: Stage
    config: TrainConfig
    accelerator: Accelerator
    distillation: Distillation | None
    model: nn.Module
    """The prepared `TrainStepModule`."""
    optimizer: torch.optim.Optimizer
    state: TrainState

    def batches(self, start: int) -> Iterator[Batch]:
        """The micro-batches of this process from step `start` to the last."""
        config, process = self.config, self.accelerator
        shard = Shard(process.process_index, process.num_processes, config.accumulate)
        left, stage = config.steps - start, self.stage
        return train_batches(
            stage.view, config.batch_size, stage.seed, start, left, config.workers, shard, stage.order
        )

    def open_log(self, start: int) -> AbstractContextManager[TrainLog | None]:
        """The log from step `start`, which the main process writes; None in other processes."""
        if not self.accelerator.is_main_process:
            return nullcontext()
        stage, config, tracker = self.stage, self.config, partial(track, self.accelerator)
        return TrainLog(stage.folder, stage.name, start, config.steps, config.batch_size, tracker)

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        return learning_rate(self.config, step) * self.state.plateau.share

    def step(self, step: int, batches: Iterator[Batch]) -> dict[str, Tensor]:
        """Take one optimizer step over `accumulate` micro-batches.

        The losses of each micro-batch of each process are weighted by its numbers of valid and labeled pixels, so the
        step is that of the whole batch (see `distill.training.parts`). (The weights are pixels with class weights too,
        so the step then depends slightly on how the batch is divided.)

        Args:
            step: 0-based.
            batches: source of the micro-batches of this process.

        Returns:
            The detached loss terms with the same weights: their sum over all processes is the loss of the batch. Empty
            if no pixel is valid in any process; then no weight, momentum or norm has changed.

        Raises:
            StoppedSafely: a process has been asked to stop before all had their images; nothing has changed.
        """
        config = self.config
        seed = generator("dropout", self.stage.seed, step, self.accelerator.process_index).integers(2**63)
        torch.manual_seed(int(seed))
        set_learning_rate(self.optimizer, self.rate(step))
        self.model.train()
        parts = loaded(batches, config.accumulate, self.accelerator)
        if not parts:
            return {}
        sums: dict[str, Tensor] = {}
        for index, part in enumerate(parts):
            unfinished = index + 1 < len(parts)
            with self.accelerator.no_sync(self.model) if unfinished else nullcontext():
                terms = self.backward(step, part)
            for name, term in terms.items():
                sums[name] = sums.get(name, 0.0) + term.detach() * part.share
        if config.clip:
            self.accelerator.clip_grad_norm_(self.model.parameters(), config.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.state.stepped()
        return sums

    def backward(self, step: int, part: Part) -> dict[str, Tensor]:
        """Add the gradients of a micro-batch, and return the terms of its loss.

        Args:
            step: 0-based.
            part: the micro-batch of this process.
        """
        valid = part.batch.valid if self.config.masked_norm and not part.complete else None
        on_cpu = self.accelerator.device.type == "cpu"
        with fast_depthwise(self.model, on_cpu and not self.config.compile):
            with step_norms(self.accelerator, self.config.masked_norm, valid):
                terms = self.loss_terms(step, part)
            # gradients are averaged over processes, not summed
            self.accelerator.backward(terms["loss"] * (part.share * self.accelerator.num_processes))
        return terms

    def loss_terms(self, step: int, part: Part) -> dict[str, Tensor]:
        """Run the teacher, and compute the terms of the loss of a batch (see `TrainStepModule`).

        Raises:
            UserError: the loss is not finite; the message names the images.
        """
        stage, config, distillation, batch = self.stage, self.config, self.distillation, part.batch
        moved = batch.to(self.accelerator.device, non_blocking=True)
        image = normalized(moved, stage, config.channels_last)
        target = distillation.teacher(moved, image) if distillation else None
        weights = distillation.weights_at(step, config.steps) if distillation else (0.0, 0.0)
        terms = self.model(image, moved, target, weights, part.task_weight)
        if not torch.isfinite(terms["loss"]):
            raise UserError(
                f"{stage.name}: the loss is {terms['loss'].item()} on the batch {', '.join(batch.ids)};"
                " lower the learning rate, set --precision fp32, or check these images"
            )
        return terms

    def record(self, log: TrainLog | None, done: int, terms: dict[str, Tensor]) -> None:
        """Log the terms if that is due after `done` steps: all processes compute, the main process writes."""
        config = self.config
        if log is not None:
            log.advance()
        if terms and (done == config.steps or done % config.log_every == 0):
            terms = cast("dict[str, Tensor]", self.accelerator.reduce(terms))
            if log is not None:
                rate = {"lr": self.rate(done - 1)}
                log.write(
                    done, {name: term.item() for name, term in terms.items()} | rate, self.state.seconds
                )

    def score(self, log: TrainLog | None, done: int, stop: StopRequests) -> None:
        """Evaluate if that is due after `done` steps: all processes compute, the main process writes.

        Raises:
            StoppedSafely: a signal came before the end of the evaluation, here or elsewhere; nothing has changed.
        """
        config, state = self.config, self.state
        # alone, at any moment; several processes agree after each image (`distill.export.evaluate`)
        interruptible = stop.at_once() if self.accelerator.num_processes == 1 else nullcontext()
        if done == config.steps or (config.eval_every and done % config.eval_every == 0):
            with interruptible:
                scores = self.stage.evaluate(state.evaluated) if self.stage.evaluate else {}
            if scores and config.schedule == "plateau" and done > config.warmup:
                state.plateau.observe(next(iter(scores.values())), config)
            if log is not None:
                log.write_scores(done, scores)
                state.keep_if_best(done, scores)


def _run(training: Training, start: int, log: TrainLog | None, stop: StopRequests) -> None:
    """Take the steps from `start` on; a stop request saves the state and raises `Interrupted`."""
    state, accelerator, config = training.state, training.accelerator, training.config
    batches, done, scored = stop.interruptible(training.batches(start)), start, not state.unscored
    try:
        if not scored:
            training.score(log, done, stop)
            scored = True
            state.save(done)
        for step in range(start, config.steps):
            terms = training.step(step, batches)
            done, scored = step + 1, False
            training.record(log, done, terms)
            training.score(log, done, stop)
            scored = True
            if done == config.steps or done % config.checkpoint_every == 0:
                state.save(done)
        sum_unless_stopped([], accelerator, stop.pending)
    except StoppedSafely as stopped:
        if not scored or done > start:
            state.save(done, scored=scored)
        wait_for_all(accelerator)  # a process that ends first may take the others with it
        message = f"stopped after step {done} of {training.stage.name}; continue with --resume"
        raise Interrupted(message, stopped.number) from None


def prepared(
    network: nn.Module,
    stage: Stage,
    config: TrainConfig,
    accelerator: Accelerator,
    distillation: Distillation | None,
) -> Training:
    """Set up a training: the network as a `TrainStepModule`, its optimizer and its state."""
    memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
    network.to(memory_format=memory_format)
    accelerator.free_memory()  # release the models and optimizers of earlier stages
    # accelerate replaces the forward method of the module that it prepares with one under autocast. `network` itself
    # stays unchanged for evaluation, averaging and export.
    distillation_loss = distillation.distillation_loss if distillation else None
    step_module = TrainStepModule(network, distillation_loss, stage.task_loss, stage.aux)
    synced = sync_norms(step_module, accelerator, config.masked_norm)
    model, optimizer = accelerator.prepare(synced, build_optimizer(step_module, config))
    if config.compile:
        model.compile()  # in place: `network` and the names of its weights do not change
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
