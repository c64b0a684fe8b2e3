"""Training batches whose content is a pure function of (seed, step); see `distill.data.order`."""

import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing import active_children

import cv2
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from deploy.errors import UserError
from deploy.signals import stopping_signals
from distill.data.order import Order
from distill.data.sample import Batch, Sample, stack
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


TIMEOUT = 600
"""Seconds to wait for a batch of the workers."""
SINGLE = Shard()
"""All samples of each step, in one batch."""


def train_batches(
    view: View,
    batch_size: int,
    seed: int,
    start_step: int,
    steps: int,
    workers: int = 0,
    shard: Shard = SINGLE,
    order: Order | None = None,
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
        order: which images make up a batch; None: all images of the view in turn.

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
    order = order or Order(len(view))
    return _load(view, _BatchSampler(order, batch_size, seed, steps_to_load, shard), workers)


@dataclass(frozen=True)
class _BatchSampler:
    """The keys of each micro-batch of one process: a batch sampler for DataLoader."""

    order: Order
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
            keys = self.order.keys(self.batch_size, self.seed, step)
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
        batch = replace(stack(good), keys=tuple(key for key, _ in samples))
        if get_worker_info() is not None:
            _share(batch)
    except UserError as error:
        return error
    return batch


def _share(batch: Batch) -> None:
    """Move a batch into shared memory here: where a worker's queue does, it prints an error and the batch is lost."""
    tensors = [value for value in vars(batch).values() if isinstance(value, torch.Tensor)]
    try:
        for tensor in tensors:
            tensor.share_memory_()
    except RuntimeError as error:
        size = sum(tensor.nbytes for tensor in tensors) / 2**20
        raise UserError(
            f"shared memory (/dev/shm) has no room for a batch of {size:.1f} MiB; give the container more (docker run"
            " --shm-size 2g), or load without processes: --teacher-train.workers 0 --student-train.workers 0"
        ) from error


def _load(view: View, sampler: _BatchSampler, workers: int) -> Iterator[Batch]:
    if workers:
        # Workers are forked, and would wait forever for threads that OpenCV started in this process.
        cv2.setNumThreads(1)
    loader = DataLoader(
        _Guarded(view),
        batch_sampler=sampler,  # pyright: ignore[reportArgumentType]  (keys are pairs, which DataLoader passes through)
        collate_fn=_collate,
        num_workers=workers,
        timeout=TIMEOUT if workers else 0,
        worker_init_fn=_start_worker,
        # DataLoader draws a base seed from this generator; without it, it would advance the global one.
        generator=torch.Generator(),
    )
    others = set(active_children())
    batches = iter(loader)
    started = set(active_children()) - others
    try:
        for batch in _named_failures(batches) if workers else batches:
            if isinstance(batch, UserError):
                raise batch
            yield batch
    finally:
        # Not left to `del`: a thread that samples frames (a profiler, Dask's) may hold the last reference for a while.
        end = getattr(batches, "_shutdown_workers", None)
        if end is not None:
            end()
        for worker in started:
            if worker.is_alive():  # stuck
                worker.kill()
                worker.join(timeout=5)


def _named_failures(batches: Iterator[Batch | UserError]) -> Iterator[Batch | UserError]:
    """The batches; a worker that dies, or that brings nothing for too long, is an error in one line."""
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except RuntimeError as error:
            reason = (str(error).splitlines() or ["no reason given"])[0]
            raise UserError(
                f"a process that loads images failed ({reason}); give the machine or container more memory, or load"
                " without them: --teacher-train.workers 0 --student-train.workers 0"
            ) from error
        yield batch


def _start_worker(_: int) -> None:
    """Ignore signals sent to the whole process group, which the main process handles, and use one thread."""
    for number in stopping_signals():
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(1)
