"""Two processes of which one is asked to stop, or differs, as a function for `tests.distill.training.two.run_two`."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Timer
from types import SimpleNamespace

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor

from deploy.errors import UserError
from distill.config import TrainConfig
from distill.export.evaluate import evaluate
from distill.pipeline.machines import check_alike, check_shared
from distill.pipeline.stages import training_stage
from distill.run_context import RunContext
from distill.training import loop
from distill.training.checkpoint import read_meta
from distill.training.stage import Interrupted, Stage
from tests.distill.training.two_trainings import Recorded, exact_net, open_context

CONFIG = TrainConfig(steps=6, batch_size=8, optimizer="sgd", lr=0.05, momentum=0.9, eval_every=3, workers=0)
IMAGES, PAUSE = 200, 0.2
"""A validation that takes each of two processes 20 seconds."""


class Many(Recorded):
    """The same five images many times."""

    def __len__(self):
        return IMAGES

    def __getitem__(self, index):
        return super().__getitem__(index % len(self.ids))


def results(rank: int, out: Path) -> dict:
    """All of this file, in one process of two."""
    context = open_context(out)
    stage = replace(
        training_stage(context, "straight", context.config.student), evaluate=lambda _: {"miou": 1.0}
    )
    straight = trained(stage, context)
    return {
        "in validation": stopped(
            replace(stage, folder=out / "validation"), context, straight, slowly(context)
        ),
        "loading": stopped(replace(stage, folder=out / "loading"), context, straight, None),
        "differing": differing(rank, context),
    }


def trained(stage: Stage, context: RunContext, resume: bool = False) -> dict[str, Tensor]:
    network = exact_net(seed=0)
    loop.train(network, stage, CONFIG, context.accelerator, resume=resume)
    return network.state_dict()


def slowly(context: RunContext) -> Callable[[torch.nn.Module], dict[str, float]]:
    """A long validation during which the second process is signaled."""

    def model(image):
        time.sleep(PAUSE)
        return SimpleNamespace(labels=np.zeros(image.shape[:2], np.uint8))

    def scored(_: torch.nn.Module) -> dict[str, float]:
        signal_second(context)
        evaluate(model, Many(context.splits.val), context.data, accelerator=context.accelerator)  # pyright: ignore
        return {"miou": 0.0}

    return scored


def stopped(stage: Stage, context: RunContext, straight: dict[str, Tensor], scored) -> dict:
    """How a training ends whose second process is signaled in the validation `scored`, or while it waits for images.

    Returns:
        Seconds, message and exit code of the stop, what the checkpoint says, and whether a resumed training equals
        `straight`.
    """
    began, found, whole = time.monotonic(), {}, loop.train_batches
    if scored is None:
        loop.train_batches = stuck(context, whole)
    try:
        trained(replace(stage, evaluate=scored or stage.evaluate), context)
    except Interrupted as error:
        found = {"seconds": time.monotonic() - began, "code": error.exit_code, "line": str(error)}
    loop.train_batches = whole
    meta = read_meta(stage.folder / "last.safetensors")
    resumed = trained(stage, context, resume=True)
    equal = all(torch.equal(value, resumed[name]) for name, value in straight.items())
    return found | {"step": meta["step"], "unscored": meta.get("unscored", False), "equal": equal}


def stuck(context: RunContext, whole):
    """`train_batches` that hangs in the second process after two batches."""

    def batches(*arguments, **options):
        for index, batch in enumerate(whole(*arguments, **options)):
            if index == 2 and not context.accelerator.is_main_process:
                signal_second(context)
                time.sleep(60)
            yield batch

    return batches


def signal_second(context: RunContext) -> None:
    if not context.accelerator.is_main_process:
        Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()


def differing(rank: int, context: RunContext) -> dict[str, str]:
    """What is said where the second process has other settings, other data or another folder."""
    config, splits, accelerator = context.config, context.splits, context.accelerator
    os.environ["GROUP_RANK"] = str(rank)  # as on two machines
    PartialState().local_process_index = 0
    fewer = Recorded(splits.val)
    fewer.ids = ["another", *fewer.ids[1:]]
    other = rank == 1
    cases = {
        "nothing": (config, splits),
        "settings": (replace(config, seed=3) if other else config, splits),
        "data": (config, replace(splits, val=fewer) if other else splits),
        "folder": (replace(config, out=config.out.with_name("elsewhere")) if other else config, splits),
    }
    said: dict[str, str] = {}
    for name, (asked, data) in cases.items():
        try:
            check_shared(asked.out, accelerator)
            check_alike(asked, {"arithmetic": "no"}, data, accelerator)
        except UserError as error:
            said[name] = str(error)
    return said
