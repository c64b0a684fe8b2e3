"""The one training loop: teacher, undistilled baseline and distilled student differ only in what they are given.

Resuming is exact because nothing random depends on history: the samples of a batch, their augmentation and dropout are
functions of (seed, step), as the schedule's learning rate is, and the rest is in the checkpoint. That makes it
bit-exact on a CPU; a GPU adds the order of its atomic additions.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from deploy.errors import UserError
from distill.config import LossConfig, TrainConfig
from distill.data.loader import train_batches
from distill.data.sample import Batch
from distill.data.seeding import generator
from distill.data.views import View
from distill.training.activation_checkpointing import checkpointed
from distill.training.checkpoint import Meta
from distill.training.distributed import any_process, sum_over_processes
from distill.training.log import TrainLog
from distill.training.optim import build_optimizer, learning_rate, set_learning_rate
from distill.training.signals import stop_requests
from distill.training.step_module import Distillation, TrainStepModule, normalized
from distill.training.sync_norm import step_norms, sync_norms
from distill.training.tracking import track
from distill.training.train_state import TrainState

Evaluate = Callable[[nn.Module], dict[str, float]]
"""Scores of a network on the validation split; the first decides which checkpoint is best. All processes call it."""


class Interrupted(UserError):
    """Training was stopped by a signal after saving a resumable state."""

    exit_code = 130


@dataclass(frozen=True)
class Stage:
    """What one training works on.

    `mean` and `std` normalize images (C×H×W, raw units) on their way into student and teacher alike.
    """

    name: str
    folder: Path
    view: View
    mean: Tensor
    std: Tensor
    loss: LossConfig
    seed: int
    class_weights: Tensor | None = None
    task: str = "segmentation"
    evaluate: Evaluate | None = None
    metadata: Meta = field(default_factory=dict)
    """What a checkpoint says of its network besides its scores (see `distill.training.checkpoint_metadata`)."""


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
        distillation: the teacher, and the losses that compare the two; None trains on the labels alone.
        resume: continue from `last.safetensors` where it exists; bit-exact on the same CPU and settings.

    Returns:
        The seconds that the stage took, those before a resume included.

    Raises:
        UserError: non-finite loss (naming the images), settings that do not fit the checkpoint.
        Interrupted: a signal asked to stop; the state is saved.
    """
    model, optimizer, state = _prepared(network, stage, config, accelerator, distillation)
    start = state.restore() if resume else 0
    batches = _batches(stage, config, accelerator, start)
    with (
        TrainLog(
            stage.folder, stage.name, start, config.steps, config.batch_size, partial(track, accelerator)
        )
        if accelerator.is_main_process
        else nullcontext() as log,
        stop_requests() as asked,
        checkpointed(network, config.checkpoint_activations),
    ):
        for step in range(start, config.steps):
            seed = generator("dropout", stage.seed, step, accelerator.process_index).integers(2**63)
            torch.manual_seed(int(seed))
            rate = learning_rate(config, step) * state.plateau.share
            set_learning_rate(optimizer, rate)
            terms_of = partial(loss_terms, model, stage, config, accelerator, distillation, step)
            terms = _step(model, optimizer, batches, terms_of, config, accelerator)
            if terms:
                state.stepped()
            done = step + 1
            stopping = any_process(asked(), accelerator)
            _record(log, state, stage, config, done, terms, rate)
            saving = stopping or done == config.steps or done % config.checkpoint_every == 0
            if saving and accelerator.is_main_process:
                state.save(done)
            if stopping:
                accelerator.wait_for_everyone()
                raise Interrupted(f"stopped after step {done} of {stage.name}; continue with --resume")
    return state.finish()


def _prepared(
    network: nn.Module,
    stage: Stage,
    config: TrainConfig,
    accelerator: Accelerator,
    distillation: Distillation | None,
) -> tuple[nn.Module, torch.optim.Optimizer, TrainState]:
    """What is stepped: the network as a `TrainStepModule`, its optimizer, and the state of a training that has not begun."""
    memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
    network.to(memory_format=memory_format)
    accelerator.free_memory()  # let go of the models and optimisers of earlier stages
    # accelerate replaces the forward method of what it prepares by one under autocast: `network` itself stays what it
    # is for evaluation, averaging and export.
    distillation_loss = distillation.distillation_loss if distillation else None
    step_module = TrainStepModule(network, distillation_loss, stage.loss, stage.class_weights, stage.task)
    synced = sync_norms(step_module, accelerator, config.masked_norm)
    model, optimizer = accelerator.prepare(synced, build_optimizer(step_module, config))
    if config.compile:
        model.compile()  # in place: `network` stays plain, and so do the names of its weights
    inner = optimizer.optimizer
    state = TrainState(
        stage.folder, network, inner, accelerator, config.steps, config.ema, distillation_loss, stage.metadata
    )
    return model, optimizer, state


def _batches(stage: Stage, config: TrainConfig, accelerator: Accelerator, start: int) -> Iterator[Batch]:
    """This process' share of the batches from step `start` to the last."""
    return train_batches(
        stage.view,
        config.batch_size,
        stage.seed,
        start,
        config.steps - start,
        workers=config.workers,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        micro=config.accumulate,
    )


def loss_terms(
    model: nn.Module,
    stage: Stage,
    config: TrainConfig,
    accelerator: Accelerator,
    distillation: Distillation | None,
    step: int,
    batch: Batch,
) -> dict[str, Tensor]:
    """The terms of the loss of a batch (see `TrainStepModule`), after asking the teacher; `model` is the prepared `TrainStepModule`."""
    moved = batch.to(accelerator.device, non_blocking=True)
    image = normalized(moved, stage.mean, stage.std, config.channels_last)
    target = distillation.teacher(moved, image) if distillation else None
    terms = model(image, moved, target, distillation.weight_at(step, config.steps) if distillation else 0.0)
    if not torch.isfinite(terms["loss"]):
        raise UserError(
            f"{stage.name}: the loss is {terms['loss'].item()} on the batch {', '.join(batch.ids)};"
            " lower the learning rate, set --precision fp32, or look at these images"
        )
    return terms


def _step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Batch],
    terms_of: Callable[[Batch], dict[str, Tensor]],
    config: TrainConfig,
    accelerator: Accelerator,
) -> dict[str, Tensor]:
    """One optimizer step over `accumulate` micro-batches.

    Each micro-batch of each process weighs as many pixels as are valid in it, so the step is that of the whole batch.
    Returns the detached loss terms, so weighted: their sum over all processes is that of the batch; {} where no pixel
    is valid anywhere and nothing has changed: no weight, momentum or norm. (With class weights the parts weigh by
    pixels all the same, so the step then depends a little on how the batch is divided.)
    """
    model.train()
    micro = [next(batches) for _ in range(config.accumulate)]
    counts = [int(batch.valid.sum()) for batch in micro]
    totals = sum_over_processes(counts, accelerator)
    total = sum(totals)
    if total == 0:
        return {}
    # Left out by all processes or by none, who would wait for its gradients and statistics.
    parts = [part for part in zip(micro, counts, totals, strict=True) if part[2]]
    sums: dict[str, Tensor] = {}
    for index, (batch, count, anywhere) in enumerate(parts):
        unfinished = index + 1 < len(parts)
        everything = anywhere == batch.valid.numel() * accelerator.num_processes
        valid = batch.valid if config.masked_norm and not everything else None
        with accelerator.no_sync(model) if unfinished else nullcontext():
            with step_norms(accelerator, config.masked_norm, valid):
                terms = terms_of(batch)
            # gradients are averaged over processes, not summed
            accelerator.backward(terms["loss"] * (count * accelerator.num_processes / total))
        for name, term in terms.items():
            sums[name] = sums.get(name, 0.0) + term.detach() * (count / total)
    if config.clip:
        accelerator.clip_grad_norm_(model.parameters(), config.clip)
    optimizer.step()
    optimizer.zero_grad()
    return sums


def _record(
    log: TrainLog | None,
    state: TrainState,
    stage: Stage,
    config: TrainConfig,
    done: int,
    terms: dict[str, Tensor],
    rate: float,
) -> None:
    """Log and evaluate after step `done` where it is time to: all compute, the process with the log writes."""
    last = done == config.steps
    if log is not None:
        log.advance()
    if terms and (last or done % config.log_every == 0):
        terms = cast("dict[str, Tensor]", state.accelerator.reduce(terms))
        if log is not None:
            log.write(done, {name: term.item() for name, term in terms.items()} | {"lr": rate})
    if last or (config.eval_every and done % config.eval_every == 0):
        scores = stage.evaluate(state.evaluated) if stage.evaluate else {}
        if scores and config.schedule == "plateau" and done > config.warmup:
            state.plateau.observe(next(iter(scores.values())), config)
        if log is not None:
            log.write_scores(done, scores)
            state.keep_if_best(done, scores)
