"""What the processes of one run tell each other."""

import os
from collections.abc import Sequence

import torch
from accelerate import Accelerator

from distill.training.log import say


def sum_over_processes(numbers: Sequence[int], accelerator: Accelerator) -> list[int]:
    """Element by element the exact sum of what the processes give; all of them must call, with as many numbers."""
    if accelerator.num_processes == 1:
        return list(numbers)
    mine = torch.tensor(numbers, dtype=torch.int64, device=accelerator.device)
    return accelerator.reduce(mine).tolist()  # pyright: ignore[reportAttributeAccessIssue]


def any_process(flag: bool, accelerator: Accelerator) -> bool:
    """Whether any of the processes says so; all of them must ask."""
    return sum_over_processes([int(flag)], accelerator)[0] > 0


def warn_of_a_lone_process(accelerator: Accelerator) -> None:
    """`accelerate launch --cpu` starts one process, however many it is asked for, unless it has MPI: say so."""
    asked = os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true" and "MASTER_ADDR" in os.environ
    if asked and accelerator.num_processes == 1:
        say(
            "warning: `accelerate launch --cpu` has started one process; for more use `accelerate launch --multi_gpu`,"
            " which needs no GPU, or torchrun"
        )
