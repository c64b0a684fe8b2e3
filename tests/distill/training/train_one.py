"""Trains one of `two_trainings.CONFIGS`: `torchrun … -m tests.distill.training.train_one NAME FOLDER`."""

import sys
from pathlib import Path

import torch

from tests.distill.training.two_trainings import open_context, trained

if __name__ == "__main__":
    name, folder = sys.argv[1], Path(sys.argv[2])
    context = open_context(folder / "run")
    torch.save(trained(name, context), folder / f"{context.accelerator.process_index}.pt")
    context.accelerator.end_training()
