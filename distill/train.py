"""The one training loop: teacher, undistilled baseline and distilled student differ only in what they are given.

Resuming is exact because nothing random depends on history: learning rate, the samples of a batch, their augmentation
and dropout are functions of (seed, step), and the rest is in the checkpoint. That makes it bit-exact on a CPU; a GPU
adds the order of its atomic additions.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from deploy.errors import UserError
from distill.checkpointing import checkpointed
from distill.config import LossConfig, TrainConfig
from distill.data.loader import TrainView, train_batches
from distill.data.sample import Batch
from distill.data.seeding import generator
from distill.log import TrainLog
from distill.losses.kd import pixelwise_kl
from distill.losses.task import cross_entropy
from distill.optim import build_optimizer, learning_rate, set_learning_rate
from distill.signals import stop_requests
from distill.state import TrainState

Evaluate = Callable[[nn.Module], dict[str, float]]
"""Scores of a network on the validation split; `miou` decides which checkpoint is best."""


class Interrupted(UserError):
    """Training was stopped by a signal after saving a resumable state."""

    exit_code = 130


@dataclass(frozen=True)
class Stage:
    """What one training works on.

    `mean` and `std` normalise images (C×H×W, raw units) on their way into student and teacher alike.
    """

    name: str
    folder: Path
    view: TrainView
    mean: Tensor
    std: Tensor
    loss: LossConfig
    seed: int
    class_weights: Tensor | None = None
    evaluate: Evaluate | None = None


def train(
    network: nn.Module,
    stage: Stage,
    config: TrainConfig,
    accelerator: Accelerator,
    *,
    teacher: nn.Module | None = None,
    resume: bool = False,
) -> float:
    """Train `network` in place and leave `best.safetensors` and `last.safetensors` in the stage's folder.

    Args:
        network: returns `teacher.pspnet.Output`; on return it holds the best (or averaged) weights.
        teacher: frozen network whose logits the student imitates with weight `loss.kd`; None trains plainly.
        resume: continue from `last.safetensors` where it exists; bit-exact on the same CPU and settings.

    Returns:
        The seconds that the stage took, those before a resume included.

    Raises:
        UserError: non-finite loss (naming the images), settings that do not fit the checkpoint.
        Interrupted: a signal asked to stop; the state is saved.
    """
    memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
    network.to(memory_format=memory_format)
    if teacher is not None:
        teacher.to(accelerator.device).to(memory_format=memory_format)  # pyright: ignore[reportCallIssue]
        teacher.eval().requires_grad_(False)
    accelerator.free_memory()  # let go of the models and optimisers of earlier stages
    # accelerate replaces the forward method of what it prepares by one under autocast: give it a shell, so that
    # `network` itself stays what it is for evaluation, averaging and export.
    shell = nn.Sequential(network)
    if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
        shell = nn.SyncBatchNorm.convert_sync_batchnorm(shell)
    model, optimizer = accelerator.prepare(shell, build_optimizer(network, config))
    if config.compile:
        model.compile()  # the shell, in place: `network` stays plain, and so do the names of its weights
    state = TrainState(stage.folder, network, optimizer.optimizer, accelerator, config.steps, config.ema)
    start = state.restore() if resume else 0
    batches = train_batches(
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
    with (
        TrainLog(stage.folder, stage.name, start, config.steps, config.batch_size)
        if accelerator.is_main_process
        else nullcontext() as log,
        stop_requests() as asked,
        checkpointed(network, config.checkpoint_activations),
    ):
        for step in range(start, config.steps):
            seed = generator("dropout", stage.seed, step, accelerator.process_index).integers(2**63)
            torch.manual_seed(int(seed))
            rate = learning_rate(config, step)
            set_learning_rate(optimizer, rate)
            terms = _step(model, teacher, optimizer, batches, stage, config, accelerator)
            if terms:
                state.stepped()
            done = step + 1
            stopping = any_process(asked(), accelerator)
            if log is not None:
                _record(log, state, stage, config, done, terms, rate)
                if stopping or done == config.steps or done % config.checkpoint_every == 0:
                    state.save(done)
            if stopping:
                accelerator.wait_for_everyone()
                raise Interrupted(f"stopped after step {done} of {stage.name}; continue with --resume")
    return state.finish()


def _step(
    model: nn.Module,
    teacher: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Batch],
    stage: Stage,
    config: TrainConfig,
    accelerator: Accelerator,
) -> dict[str, Tensor]:
    """One optimiser step over `accumulate` micro-batches.

    Each micro-batch of each process weighs as many pixels as are valid in it, so the step is that of the whole batch.
    Returns the detached loss terms, so weighted over this process; {} where no pixel is valid anywhere and nothing
    has changed: no weight, momentum or norm.
    """
    model.train()
    micro = [next(batches) for _ in range(config.accumulate)]
    counts = [int(batch.valid.sum()) for batch in micro]
    mine = sum(counts)
    total = mine
    if accelerator.num_processes > 1:
        total = int(accelerator.reduce(torch.tensor(mine, device=accelerator.device)).item())  # pyright: ignore[reportAttributeAccessIssue]
    if total == 0:
        return {}
    if accelerator.num_processes == 1:  # other processes would wait for the gradients of a batch left out
        micro, counts = zip(*((b, n) for b, n in zip(micro, counts, strict=True) if n), strict=True)
    sums: dict[str, Tensor] = {}
    for index, (batch, count) in enumerate(zip(micro, counts, strict=True)):
        unfinished = index + 1 < len(micro)
        with accelerator.no_sync(model) if unfinished else nullcontext():
            terms = loss_terms(model, teacher, batch, stage, config, accelerator)
            _require_finite(terms["loss"], batch, stage)
            # gradients are averaged over processes, not summed
            accelerator.backward(terms["loss"] * (count * accelerator.num_processes / total))
        for name, term in terms.items():
            sums[name] = sums.get(name, 0.0) + term.detach() * (count / max(mine, 1))
    if config.clip:
        accelerator.clip_grad_norm_(model.parameters(), config.clip)
    optimizer.step()
    optimizer.zero_grad()
    return sums


def _record(
    log: TrainLog,
    state: TrainState,
    stage: Stage,
    config: TrainConfig,
    done: int,
    terms: dict[str, Tensor],
    rate: float,
) -> None:
    """Log and evaluate after step `done` where it is time to."""
    log.advance()
    last = done == config.steps
    if terms and (last or done % config.log_every == 0):
        log.write(done, {name: term.item() for name, term in terms.items()} | {"lr": rate})
    if last or (config.eval_every and done % config.eval_every == 0):
        scores = stage.evaluate(state.evaluated) if stage.evaluate else {}
        log.write_scores(done, scores)
        state.keep_if_best(done, scores)


def loss_terms(
    model: nn.Module,
    teacher: nn.Module | None,
    batch: Batch,
    stage: Stage,
    config: TrainConfig,
    accelerator: Accelerator,
) -> dict[str, Tensor]:
    """The terms `loss = task + λ_kd·kd + λ_aux·aux` of a batch, each a scalar."""
    device, loss = accelerator.device, stage.loss
    batch = batch.to(device, non_blocking=True)
    label, valid = batch.label, batch.valid
    image = (batch.image - stage.mean.to(device)) / stage.std.to(device)
    if config.channels_last:
        image = image.contiguous(memory_format=torch.channels_last)
    weights = None if stage.class_weights is None else stage.class_weights.to(device)
    output = model(image)
    terms = {"task": cross_entropy(output.logits, label, valid, weights)}
    total = terms["task"]
    if teacher is not None and loss.kd:
        with torch.no_grad(), accelerator.autocast():
            target = teacher(image).logits
        terms["kd"] = pixelwise_kl(output.logits, target, valid, loss.tau)
        total = total + loss.kd * terms["kd"]
    if output.aux is not None and loss.aux:
        terms["aux"] = cross_entropy(output.aux, label, valid, weights)
        total = total + loss.aux * terms["aux"]
    return {"loss": total, **terms}


def _require_finite(loss: Tensor, batch: Batch, stage: Stage) -> None:
    if not torch.isfinite(loss):
        raise UserError(
            f"{stage.name}: the loss is {loss.item()} on the batch {', '.join(batch.ids)};"
            " lower the learning rate, set --precision fp32, or look at these images"
        )


def any_process(flag: bool, accelerator: Accelerator) -> bool:
    """Whether any of the processes says so; all of them must ask."""
    if accelerator.num_processes == 1:
        return flag
    return bool(accelerator.reduce(torch.tensor(int(flag), device=accelerator.device)).item())  # pyright: ignore[reportAttributeAccessIssue]
