"""Training batches whose content is a pure function of (seed, step).

The stream of samples is endless: the permutation of epoch 0, then that of epoch 1, and so on. Step t takes positions
t·B … t·B + B - 1. So a run that resumes at step t sees the same samples as an uninterrupted run, with any number of
workers, and no sample is dropped at the end of an epoch.
"""

import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from deploy.errors import UserError
from distill.data.sample import Batch, Sample, stack
from distill.data.seeding import generator
from distill.data.view import Key, View


@dataclass(frozen=True)
class Shard:
    """The part of each step's samples that one process loads."""

    rank: int = 0
    """Index of the process."""
    world: int = 1
    """Number of processes."""
    micro: int = 1
    """Micro-batches per step (gradient accumulation)."""


SINGLE = Shard()
"""All samples of each step, in one batch."""


def step_indices(n: int, batch_size: int, seed: int, step: int) -> list[Key]:
    """The (epoch, index) of the `batch_size` samples of global step `step`, in a data set of `n` samples."""
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
    shard: Shard = SINGLE,
) -> Iterator[Batch]:
    """The batches of one process for steps `start_step` … `start_step + steps - 1`.

    Each step is divided into micro-batches in order, and each micro-batch into contiguous parts, one per process. So
    all processes together work on the same micro-batch as a single process would.

    Args:
        view: where samples come from.
        batch_size: samples per step, over all processes and micro-batches.
        seed: determines the order of the samples.
        start_step: the first global step.
        steps: number of steps.
        workers: processes that load ahead; they end with the iterator. 0 loads in this process.
        shard: the part of each step that this process loads.

    Yields:
        `steps · shard.micro` batches.

    Raises:
        UserError: the view is empty, the batch does not divide evenly, or a sample cannot be read (also in a worker).
    """
    if len(view) == 0:
        raise UserError("the training split has no images")
    if batch_size % (shard.world * shard.micro):
        raise UserError(
            f"a batch of {batch_size} does not divide into {shard.world} process(es) × {shard.micro} "
            "micro-batch(es): change the batch size"
        )
    steps_to_load = range(start_step, start_step + steps)
    return _load(view, _BatchSampler(len(view), batch_size, seed, steps_to_load, shard), workers)


@dataclass(frozen=True)
class _BatchSampler:
    """The keys of each micro-batch of one process: a batch sampler for DataLoader."""

    n: int
    batch_size: int
    seed: int
    steps: range
    shard: Shard

    def __len__(self) -> int:
        return len(self.steps) * self.shard.micro

    def __iter__(self) -> Iterator[list[Key]]:
        shard = self.shard
        size = self.batch_size // (shard.world * shard.micro)
        for step in self.steps:
            keys = step_indices(self.n, self.batch_size, self.seed, step)
            for part in range(shard.micro):
                first = (part * shard.world + shard.rank) * size
                yield keys[first : first + size]


class _Guarded(Dataset):
    """A view that returns each sample with its key, and returns a UserError instead of raising it.

    DataLoader would re-raise the error with the worker's traceback in its message.
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


def _load(view: View, sampler: _BatchSampler, workers: int) -> Iterator[Batch]:
    if workers:
        # Workers are forked, and would wait forever for threads that OpenCV started in this process.
        cv2.setNumThreads(1)
    loader = DataLoader(
        _Guarded(view),
        batch_sampler=sampler,  # pyright: ignore[reportArgumentType]  (keys are pairs, which DataLoader passes through)
        collate_fn=_collate,
        num_workers=workers,
        worker_init_fn=_start_worker,
        # DataLoader draws a base seed from this generator; without it, it would advance the global one.
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
    """Ignore signals sent to the whole process group, which the main process handles, and use one thread."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cv2.setNumThreads(1)
