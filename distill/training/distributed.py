"""Communication between the processes of a run."""

import os
from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from distill.training.log import say


def sum_over_processes(numbers: Sequence[int], accelerator: Accelerator) -> list[int]:
    """The exact element-wise sum of `numbers` over processes; all processes must call, with equally many numbers."""
    if accelerator.num_processes == 1:
        return list(numbers)
    mine = torch.tensor(numbers, dtype=torch.int64, device=accelerator.device)
    return accelerator.reduce(mine).tolist()  # pyright: ignore[reportAttributeAccessIssue]


def any_process(flag: bool, accelerator: Accelerator) -> bool:
    """Whether `flag` is set in any process; all processes must call."""
    return sum_over_processes([int(flag)], accelerator)[0] > 0


def shared(value: Any, accelerator: Accelerator) -> Any:
    """The value that the main process passes, in all processes; all must call."""
    if accelerator.num_processes == 1:
        return value
    [value] = broadcast_object_list([value])
    return value


def warn_of_a_lone_process(accelerator: Accelerator) -> None:
    """Warn if `accelerate launch --cpu` started a single process: without MPI it ignores the number requested."""
    asked = os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true" and "MASTER_ADDR" in os.environ
    if asked and accelerator.num_processes == 1:
        say(
            "warning: `accelerate launch --cpu` started one process; for more use `accelerate launch --multi_gpu`,"
            " which needs no GPU, or torchrun"
        )
