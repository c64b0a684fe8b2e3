"""The one training loop: teacher, undistilled baseline and distilled student differ only in what they are given.

Resuming is exact because nothing random depends on history: learning rate, the samples of a batch, their augmentation
and dropout are functions of (seed, step); the rest is in the checkpoint.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from deploy.errors import UserError
from distill.checkpoint import (
    Meta,
    load_checkpoint,
    optimizer_tensors,
    pack,
    restore_optimizer,
    save_checkpoint,
    unpack,
)
from distill.config import LossConfig, TrainConfig
from distill.data.loader import TrainView, train_batches
from distill.data.sample import Batch
from distill.log import TrainLog
from distill.losses.kd import pixelwise_kl
from distill.losses.task import cross_entropy
from distill.optim import build_optimizer, learning_rate, set_learning_rate

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
) -> Meta:
    """Train `network` in place and leave `best.safetensors` and `last.safetensors` in the stage's folder.

    Args:
        network: returns `teacher.pspnet.Output`; on return it holds the best (or averaged) weights.
        teacher: frozen network whose logits the student imitates with weight `loss.kd`; None trains plainly.
        resume: continue from `last.safetensors` where it exists; bit-exact on the same machine and settings.

    Returns:
        The best checkpoint's record: `step` and the validation scores.

    Raises:
        UserError: non-finite loss (naming the images), settings that do not fit the checkpoint.
        Interrupted: a signal asked to stop; the state is saved.
    """
    accelerator.gradient_accumulation_steps = config.accumulate
    network.to(memory_format=torch.channels_last if config.channels_last else torch.contiguous_format)
    # accelerate replaces the forward method of what it prepares by one under autocast: give it a shell, so that
    # `network` itself stays what it is for evaluation, averaging and export.
    model, optimizer = accelerator.prepare(nn.Sequential(network), build_optimizer(network, config))
    average = _averaged(network, config, accelerator)
    state = _TrainState(network, optimizer.optimizer, average, stage, config, accelerator)
    start = state.restore() if resume else 0
    if teacher is not None:
        teacher.to(accelerator.device).eval().requires_grad_(False)
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
    with _log(accelerator, stage, config, start) as log, _stop_requests() as stop_requested:
        for step in range(start, config.steps):
            torch.manual_seed(_mix(stage.seed, step, accelerator.process_index))  # dropout
            set_learning_rate(optimizer, learning_rate(config, step))
            terms = _step(model, teacher, optimizer, batches, stage, config, accelerator)
            if average is not None:
                average.update_parameters(network)
            log.advance()
            done = step + 1
            if done % config.log_every == 0 or done == config.steps:
                log.write(done, {k: v.item() for k, v in terms.items()} | {"lr": learning_rate(config, step)})
            if done == config.steps or (config.eval_every and done % config.eval_every == 0):
                state.evaluate(done, log)
            if done == config.steps or done % config.checkpoint_every == 0 or stop_requested():
                state.save(done)
            if stop_requested() and done < config.steps:
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
    """One optimiser step over `accumulate` micro-batches; returns the detached loss terms of the last one."""
    model.train()
    terms: dict[str, Tensor] = {}
    for _ in range(config.accumulate):
        batch = next(batches)
        if accelerator.num_processes == 1 and config.accumulate == 1 and not batch.valid.any():
            return {
                "loss": torch.zeros(())
            }  # nothing to learn from: weights, momentum and norms stay as they are
        with accelerator.accumulate(model):
            terms = loss_terms(model, teacher, batch, stage, config, accelerator)
            _require_finite(terms["loss"], batch, stage)
            accelerator.backward(terms["loss"])
            if config.clip and accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), config.clip)
            optimizer.step()
            optimizer.zero_grad()
    return {name: term.detach() for name, term in terms.items()}


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
    label, valid = batch.label.to(device), batch.valid.to(device)
    image = (batch.image.to(device) - stage.mean.to(device)) / stage.std.to(device)
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


class _TrainState:
    """Everything of a running training that a checkpoint must carry."""

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: AveragedModel | None,
        stage: Stage,
        config: TrainConfig,
        accelerator: Accelerator,
    ) -> None:
        self.network, self.optimizer, self.average = network, optimizer, average
        self.stage, self.config, self.accelerator = stage, config, accelerator
        self.best: Meta = {"step": 0, "miou": -1.0}
        self.last_path = stage.folder / "last.safetensors"
        self.best_path = stage.folder / "best.safetensors"

    def evaluated_network(self) -> nn.Module:
        return self.network if self.average is None else self.average.module

    def evaluate(self, step: int, log: TrainLog) -> None:
        """Score on the main process and keep the weights if they are the best so far."""
        if self.accelerator.is_main_process:
            network = self.evaluated_network().eval()
            scores = self.stage.evaluate(network) if self.stage.evaluate else {}
            if scores:
                log.write_scores(step, {f"val_{name}": value for name, value in scores.items()})
            if scores.get("miou", float(step)) >= float(self.best["miou"] or 0.0):
                self.best = {"step": step, "miou": float(step), **scores}
                save_checkpoint(self.best_path, pack("model", network.state_dict()), self.best)
        self.accelerator.wait_for_everyone()

    def save(self, step: int) -> None:
        """Write `last.safetensors`; after the final step there is nothing to go on with, so only the weights."""
        if self.accelerator.is_main_process:
            tensors = pack("model", self.network.state_dict())
            if step < self.config.steps:
                tensors |= pack("optimizer", optimizer_tensors(self.optimizer))
                if self.average is not None:
                    tensors |= pack("average", self.average.state_dict())
            scaler = self.accelerator.scaler
            meta: Meta = {"step": step, **{f"best_{k}": v for k, v in self.best.items()}}
            if scaler is not None:
                meta |= {f"scaler_{k}": v for k, v in scaler.state_dict().items()}
            save_checkpoint(self.last_path, tensors, meta)

    def restore(self) -> int:
        """Load the last checkpoint if there is one; returns the step to go on from."""
        if not self.last_path.exists():
            return 0
        tensors, meta = load_checkpoint(self.last_path)
        step = int(meta["step"] or 0)
        if step > self.config.steps:
            raise UserError(
                f"{self.last_path} is at step {step}, beyond the {self.config.steps} steps asked for"
            )
        self.network.load_state_dict(unpack("model", tensors))
        restore_optimizer(self.optimizer, unpack("optimizer", tensors))
        if self.average is not None:
            self.average.load_state_dict(unpack("average", tensors))
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(
                {k[7:]: v for k, v in meta.items() if k.startswith("scaler_")}
            )
        self.best = {k[5:]: v for k, v in meta.items() if k.startswith("best_")}
        return step

    def finish(self) -> Meta:
        """Give `network` the best weights."""
        self.accelerator.wait_for_everyone()
        tensors, meta = load_checkpoint(self.best_path)
        self.network.load_state_dict(unpack("model", tensors))
        self.network.eval()
        return meta


def _averaged(network: nn.Module, config: TrainConfig, accelerator: Accelerator) -> AveragedModel | None:
    if not config.ema:
        return None
    return AveragedModel(
        network, accelerator.device, multi_avg_fn=get_ema_multi_avg_fn(config.ema), use_buffers=True
    )


@contextmanager
def _log(accelerator: Accelerator, stage: Stage, config: TrainConfig, start: int) -> Iterator[TrainLog]:
    folder = (
        stage.folder if accelerator.is_main_process else stage.folder / f"rank{accelerator.process_index}"
    )
    with TrainLog(folder, stage.name, start, config.steps, config.batch_size) as log:
        yield log


@contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT or SIGTERM into a request that the loop answers between steps; a second one kills."""
    received: list[int] = []
    previous = {}

    def handler(number: int, _frame: object) -> None:
        received.append(number)
        signal.signal(number, previous[number])

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, handler)
    except ValueError:  # not the main thread: signals are somebody else's business
        previous.clear()
    try:
        yield lambda: bool(received)
    finally:
        for number, old in previous.items():
            signal.signal(number, old)


def _mix(*parts: int) -> int:
    return hash(parts) % 2**63
