"""The parts of a training step, each a micro-batch of one process, and how much each counts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from accelerate import Accelerator

from deploy.errors import UserError
from distill.data.sample import Batch
from distill.training.distributed import sum_unless_stopped
from distill.training.signals import StoppedSafely


@dataclass(frozen=True)
class Part:
    """A micro-batch of this process.

    A step is that of its whole batch if the means over the valid pixels of its parts are weighted by `share`, and those
    over labeled pixels by `share · task_weight`, this part's fraction of the labeled pixels.
    """

    batch: Batch
    share: float = 1.0
    """Its fraction of the step's valid pixels."""
    task_weight: float = 1.0
    """Its fraction of the step's labeled pixels, divided by `share`; exactly 1 where all valid pixels are labeled."""
    complete: bool = False
    """Whether every pixel of the micro-batch is valid, in all processes."""


def loaded(batches: Iterator[Batch], count: int, accelerator: Accelerator) -> list[Part]:
    """Load the `count` micro-batches of a step, as `counted`; all processes must call.

    Raises:
        UserError: an image cannot be read, here or in another process: all raise.
        StoppedSafely: a process has been asked to stop: all raise.
    """
    try:
        micro = [next(batches) for _ in range(count)]
    except (UserError, StoppedSafely) as problem:  # raised once the others know, which wait for the counts
        sum_unless_stopped([0, 0] * count, accelerator, problem)
        raise
    return counted(micro, accelerator)


def counted(micro: Sequence[Batch], accelerator: Accelerator) -> list[Part]:
    """The micro-batches of this process that have a valid pixel in any process; all processes must call.

    All processes skip a micro-batch, or none: they wait for each other's gradients and statistics.
    """
    counts = [int(mask.sum()) for batch in micro for mask in (batch.valid, batch.labeled)]
    totals = sum_unless_stopped(counts, accelerator)
    valid, labeled = sum(totals[::2]), sum(totals[1::2])
    parts = []
    for index, batch in enumerate(micro):
        own_valid, own_labeled = counts[2 * index : 2 * index + 2]
        if totals[2 * index]:
            share = own_valid / valid
            task_weight = own_labeled / labeled / share if own_labeled else 0.0
            complete = totals[2 * index] == batch.valid.numel() * accelerator.num_processes
            parts.append(Part(batch, share, task_weight, complete))
    return parts
