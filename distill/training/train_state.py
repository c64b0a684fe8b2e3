"""The state of a running training, and how it is saved to checkpoints and restored."""

import math
import time
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from deploy.errors import UserError
from distill.training.checkpoint import (
    REMEDY,
    Meta,
    load_checkpoint,
    load_network,
    optimizer_tensors,
    pack,
    read_meta,
    restore_optimizer,
    save_checkpoint,
    unpack,
)
from distill.training.distributed import by_main
from distill.training.optim import Plateau, moving_average

LAST, BEST = "last.safetensors", "best.safetensors"


class TrainState:
    """Network, optimizer, averaged weights, loss scale, plateau, best score and elapsed time of one stage.

    Args:
        folder: of the checkpoints.
        network: the network that is trained.
        optimizer: its optimizer.
        accelerator: its device and loss scale.
        steps: length of the stage.
        ema: decay of the averaged weights; 0 = none.
        distillation_loss: its adapters and memories are saved only for resuming; the result of a stage is the network.
        metadata: further metadata of `best.safetensors`.
    """

    def __init__(
        self,
        folder: Path,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        accelerator: Accelerator,
        steps: int,
        ema: float,
        distillation_loss: nn.Module | None = None,
        metadata: Meta | None = None,
    ) -> None:
        self.folder, self.network, self.optimizer = folder, network, optimizer
        self.distillation_loss, self.metadata = distillation_loss, metadata or {}
        self.accelerator, self.steps = accelerator, steps
        self.average = None
        if ema:
            self.average = AveragedModel(
                network, accelerator.device, multi_avg_fn=moving_average(ema), use_buffers=True
            )
        self.best: Meta = {}
        self.unscored = False
        """Whether an evaluation that was due at the step of the checkpoint is still to be done."""
        self.plateau = Plateau()
        self._began, self._spent = time.perf_counter(), 0.0
        if (
            accelerator.scaler is not None
        ):  # shared by the stages of a process: each starts from the same scale
            accelerator.scaler.load_state_dict(torch.amp.GradScaler().state_dict())

    @property
    def evaluated(self) -> nn.Module:
        """The network to evaluate: the one with averaged weights if there is one."""
        return self.network if self.average is None else self.average.module

    @property
    def seconds(self) -> float:
        """Time spent on this stage, including earlier processes."""
        return self._spent + time.perf_counter() - self._began

    def count(self, seconds: float) -> None:
        """Count the seconds of earlier processes, which may have worked on after the checkpoint."""
        self._spent = max(self._spent, seconds)

    def stepped(self) -> None:
        """Update the averaged weights after an optimizer step."""
        if self.average is not None:
            self.average.update_parameters(self.network)

    def keep_if_best(self, step: int, scores: dict[str, float]) -> None:
        """Write `best.safetensors` unless an earlier first score is higher; without scores, write it every time."""
        name = next(iter(scores), "")
        if scores and scores[name] < self.best.get(name, -math.inf):
            return
        self.best = {"step": step, **scores}
        save_checkpoint(
            self.folder / BEST, pack("model", self.evaluated.state_dict()), self.best | self.metadata
        )

    def save(self, step: int, *, scored: bool = True) -> None:
        """Write `last.safetensors` in the main process; after the final step only the weights: all that is needed.

        Args:
            step: number of finished steps.
            scored: False if the evaluation after that step was interrupted.
        """
        if not self.accelerator.is_main_process:
            return
        tensors = pack("model", self.network.state_dict())
        meta: Meta = {"step": step, "seconds": self.seconds, **{f"best_{k}": v for k, v in self.best.items()}}
        if not scored:
            meta["unscored"] = True
        if step < self.steps or not scored:
            meta |= {f"plateau_{k}": v for k, v in asdict(self.plateau).items()}
            tensors |= pack("optimizer", optimizer_tensors(self.optimizer))
            if self.average is not None:
                tensors |= pack("average", self.average.state_dict())
            if self.distillation_loss is not None:
                tensors |= pack("distiller", self.distillation_loss.state_dict())
            if self.accelerator.scaler is not None:
                meta |= {f"scaler_{k}": v for k, v in self.accelerator.scaler.state_dict().items()}
        save_checkpoint(self.folder / LAST, tensors, meta)

    def restore(self) -> int:
        """Load the last checkpoint, if there is one.

        Returns:
            The number of finished steps.

        Raises:
            UserError: the checkpoint is damaged, or the stage is complete except for its best checkpoint.
        """
        path = self.folder / LAST
        found = by_main(lambda: load_checkpoint(path) if path.exists() else None, self.accelerator)
        if found is None:
            return 0
        tensors, meta = found
        try:
            step, self._spent = int(meta["step"]), float(meta["seconds"])
            self.unscored = bool(meta.get("unscored", False))
            if step >= self.steps and not self.unscored:
                raise UserError(f"{path} is at step {step} of {self.steps}, yet {BEST} is missing; {REMEDY}")
            self._restore(tensors, meta)
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path}: holds the state of another training, or is damaged; {REMEDY}"
            ) from error
        return step

    def _restore(self, tensors: dict[str, Tensor], meta: Meta) -> None:
        self.network.load_state_dict(unpack("model", tensors))
        restore_optimizer(self.optimizer, unpack("optimizer", tensors))
        if self.average is not None:
            self.average.load_state_dict(unpack("average", tensors))
        if self.distillation_loss is not None:
            self.distillation_loss.load_state_dict(unpack("distiller", tensors))
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(_under("scaler_", meta))
        self.best = _under("best_", meta)
        self.plateau = Plateau(**_under("plateau_", meta))

    def finish(self) -> float:
        """Load the best weights into the network, and return the seconds that the stage took."""
        load_network(self.network, self.folder / BEST, self.accelerator)
        self.network.eval()
        return self.seconds


def finished(folder: Path, steps: int) -> float | None:
    """The seconds that a stage of `steps` steps took if its checkpoints in `folder` are complete, else None."""
    if not ((folder / LAST).exists() and (folder / BEST).exists()):
        return None
    meta = read_meta(folder / LAST)
    try:
        is_whole = meta["step"] == steps and not meta.get("unscored", False)
        return float(meta["seconds"]) if is_whole else None
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / LAST}: damaged checkpoint (no {error}); {REMEDY}") from error


def _under(prefix: str, meta: Meta) -> Meta:
    return {name[len(prefix) :]: value for name, value in meta.items() if name.startswith(prefix)}
