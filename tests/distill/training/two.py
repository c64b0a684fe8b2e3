"""Two processes on the CPU that work together, as torchrun would start them."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import distributed
from torch.multiprocessing.spawn import spawn

WORLD = 2


def run_two(work: Callable, folder: Path, *args: object) -> list:
    """The results of `work(rank, *args)` in two processes; `work` and functions in `args` must be importable."""
    folder.mkdir(parents=True, exist_ok=True)
    spawn(_process, (work, folder, args), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


def _process(rank: int, work: Callable, folder: Path, args: tuple) -> None:
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ |= {"WORLD_SIZE": str(WORLD), "LOCAL_WORLD_SIZE": str(WORLD)}
    distributed.init_process_group("gloo", f"file://{folder / 'store'}", rank=rank, world_size=WORLD)
    try:
        torch.save(work(rank, *args), folder / f"{rank}.pt")
    finally:
        distributed.destroy_process_group()
