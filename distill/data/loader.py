"""Training batches whose content is a pure function of (seed, step).

The stream of samples is endless: the permutation of epoch 0, then that of epoch 1, and so on. Step t takes positions
t·B … t·B + B - 1 of it, so a run that resumes at step t sees what the uninterrupted run would have seen, whatever the
number of workers, and no sample is dropped at the end of an epoch.
"""

import signal
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from deploy.errors import UserError
from distill.data.sample import Batch, Sample, stack
from distill.data.seeding import generator
from distill.data.train_view import Key
from distill.data.views import View


def step_indices(n: int, batch_size: int, seed: int, step: int) -> list[Key]:
    """The (epoch, index) of each of the `batch_size` samples of global step `step`, for a data set of `n`."""
    positions = range(step * batch_size, (step + 1) * batch_size)
    return [
        (position // n, int(_permutation(n, seed, position // n)[position % n])) for position in positions
    ]


@lru_cache(maxsize=8)
def _permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    return generator("order", seed, epoch).permutation(n)


def train_batches(
    view: View,
    batch_size: int,
    seed: int,
    start_step: int,
    steps: int,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    micro: int = 1,
) -> Iterator[Batch]:
    """Batches of steps `start_step` … `start_step + steps - 1`.

    Each step has `batch_size` samples over all processes: `micro` micro-batches in order, of each of which process
    `rank` of `world` gets its contiguous share, so `steps · micro` batches come out. Thus what the processes work on at
    a time is what one process would. `workers` processes load ahead; they end with the iterator. Raises UserError when
    the batch does not divide, and as it is when a worker meets one.
    """
    if len(view) == 0:
        raise UserError("the training split has no images")
    if batch_size % (world * micro):
        raise UserError(
            f"a batch of {batch_size} does not divide into {world} process(es) × {micro} micro-batch(es): "
            "change the batch size"
        )
    plan = _Plan(len(view), batch_size, seed, start_step, steps, rank, world, micro)
    return _load(view, plan, workers)


class _Plan:
    """The keys of each micro-batch of one process: a batch sampler for DataLoader."""

    def __init__(
        self, n: int, batch_size: int, seed: int, start: int, steps: int, rank: int, world: int, micro: int
    ) -> None:
        self.n, self.batch_size, self.seed = n, batch_size, seed
        self.steps = range(start, start + steps)
        self.rank, self.world, self.micro = rank, world, micro

    def __len__(self) -> int:
        return len(self.steps) * self.micro

    def __iter__(self) -> Iterator[list[Key]]:
        size = self.batch_size // (self.world * self.micro)
        for step in self.steps:
            keys = step_indices(self.n, self.batch_size, self.seed, step)
            for part in range(self.micro):
                first = (part * self.world + self.rank) * size
                yield keys[first : first + size]


class _Guarded(Dataset):
    """A view that returns samples with their keys, and a UserError instead of raising it.

    DataLoader would re-raise it with the worker's traceback pasted into the message.
    """

    def __init__(self, view: View) -> None:
        self.view = view

    def __getitem__(self, key: Key) -> tuple[Key, Sample | UserError]:
        try:
            return key, self.view[key]
        except UserError as error:
            return key, error


def _collate(samples: list[tuple[Key, Sample | UserError]]) -> Batch | UserError:
    good = []
    for _, sample in samples:
        if isinstance(sample, UserError):
            return sample
        good.append(sample)
    try:
        return replace(stack(good), keys=tuple(key for key, _ in samples))
    except UserError as error:
        return error


def _load(view: View, plan: _Plan, workers: int) -> Iterator[Batch]:
    if workers:
        # A worker is a fork, and would wait for ever for threads that OpenCV has started in this process.
        cv2.setNumThreads(1)
    loader = DataLoader(
        _Guarded(view),
        batch_sampler=plan,  # pyright: ignore[reportArgumentType]  (keys are pairs, which DataLoader passes through)
        collate_fn=_collate,
        num_workers=workers,
        worker_init_fn=_start_worker,
        # DataLoader draws a base seed from a generator; without one of its own it would advance the global one.
        generator=torch.Generator(),
    )
    batches = iter(loader)
    try:
        for batch in batches:
            if isinstance(batch, UserError):
                raise batch
            yield batch
    finally:
        del batches  # ends the workers


def _start_worker(_: int) -> None:
    """Signals to a whole process group reach workers too: only the main process answers. One thread per worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cv2.setNumThreads(1)
