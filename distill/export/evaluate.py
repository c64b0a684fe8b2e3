"""Scores of any model over any reader, through the device's own preprocessing and postprocessing."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from deploy.bundle.manifest import InputSpec
from deploy.errors import UserError
from deploy.evaluation.receipt import Sample as EvalSample
from deploy.evaluation.receipt import Scorer
from deploy.tasks.task import Model
from distill.data.sample import IGNORE
from distill.data.splits import Reader
from distill.export.deployable import Deployable, TorchEngine
from distill.tasks.task import PreparedData
from distill.training.distributed import sum_over_processes


def eval_samples(
    reader: Reader, data: PreparedData, limit: int | None = None, rank: int = 0, world: int = 1
) -> Iterator[EvalSample]:
    """The samples of a reader as the arrays that a device gets: uint8 for optical images, else float32 with NaN.

    Args:
        reader: one of the splits of `data`, or part of it.
        data: the data set.
        limit: takes the first ones only.
        rank: position of the first.
        world: of these every `world`-th from `rank` on.
    """
    for index in range(len(reader))[:limit][rank::world]:
        yield data.task.arrays(reader[index], data.splits.optical)


def spread(positions: Sequence[int], limit: int) -> list[int]:
    """At most `limit` of the positions, evenly spread."""
    count = min(limit, len(positions))
    return [positions[index * len(positions) // count] for index in range(count)]


def torch_model(
    network: nn.Module,
    spec: InputSpec,
    data: PreparedData,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Model:
    """The runtime's model of the data's task, with torch as its engine (see `Deployable` for `dtype`)."""
    engine = TorchEngine(Deployable(network, spec, data.task.head(data.stats), dtype), device)
    return data.task.device.model(spec, data.splits.classes, engine, IGNORE)


def evaluate(
    model: Model,
    reader: Reader,
    data: PreparedData,
    limit: int | None = None,
    accelerator: Accelerator | None = None,
) -> Scorer:
    """Scores over the samples of `reader`, at the labels' own resolution.

    Args:
        model: what is scored.
        reader: one of the splits of `data`, or part of it.
        data: the data set.
        limit: takes the first samples only.
        accelerator: all its processes must call: each takes its share of the images, and all get the scores of all
            images, exactly, as these follow from integer counts.

    Raises:
        UserError: an image that cannot be read or scored, here or in another process.
    """
    rank, world = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    scorer, failure = new_scorer(data), None
    try:
        for _, image, truth, valid in eval_samples(reader, data, limit, rank, world):
            scorer.update(model(image), truth, valid)
    except UserError as error:
        failure = error  # raised once the others know, who would wait for these counts
    if accelerator is not None:
        _merge(scorer, failure, accelerator)
    if failure is not None:
        raise failure
    return scorer


def new_scorer(data: PreparedData) -> Scorer:
    """A scorer of the data's task and classes."""
    return data.task.device.scorer([info.name for info in data.splits.classes])


def _merge(scorer: Scorer, failure: UserError | None, accelerator: Accelerator) -> None:
    """Add the counts of all other processes to those of this one."""
    counts = scorer.counts()
    numbers = [int(failure is not None), *(number for array in counts for number in array.flat)]
    failed, *merged = sum_over_processes(numbers, accelerator)
    if failed and failure is None:
        raise UserError("another process could not score its share of the images; see its line")
    pieces = np.split(np.array(merged, np.int64), np.cumsum([array.size for array in counts])[:-1])
    for array, piece in zip(counts, pieces, strict=True):
        array[...] = piece.reshape(array.shape)
