"""Score any model on any reader, with the preprocessing and postprocessing of the device."""

from collections.abc import Sequence
from itertools import islice

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from deploy.bundle.manifest import InputSpec
from deploy.errors import UserError
from deploy.evaluation.receipt import Sample as EvalSample
from deploy.evaluation.receipt import Scorer
from deploy.evaluation.samples import Samples
from deploy.heartbeat import counted
from deploy.tasks.task import Model
from distill.data.sample import IGNORE
from distill.data.splits import Reader
from distill.export.deployable import Deployable, TorchEngine
from distill.tasks.task import PreparedData
from distill.training.distributed import sum_over_processes, sum_unless_stopped
from distill.training.signals import pending_request


def eval_samples(
    reader: Reader, data: PreparedData, limit: int | None = None, rank: int = 0, world: int = 1
) -> Samples:
    """The samples of a reader as arrays, as on a device: uint8 for optical images, else float32 with NaN as no data.

    Args:
        reader: a split of `data`, or part of one.
        data: the data set.
        limit: use only the first `limit` samples; None = all.
        rank: index of the first sample to yield.
        world: step from one sample to the next.
    """
    chosen = range(len(reader))[:limit][rank::world]
    arrays = (data.task.arrays(reader[index], data.splits.optical) for index in chosen)
    return Samples(arrays, len(chosen))


def spread(positions: Sequence[int], limit: int) -> list[int]:
    """Choose at most `limit` of the positions, evenly spread."""
    count = min(limit, len(positions))
    return [positions[index * len(positions) // count] for index in range(count)]


def torch_model(
    network: nn.Module,
    spec: InputSpec,
    data: PreparedData,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Model:
    """The deployed model of the data's task, with torch as its engine.

    Args:
        network: returns `teacher.pspnet.Output`.
        spec: input of the model.
        data: its task and classes.
        device: where the network runs.
        dtype: see `Deployable`.
    """
    engine = TorchEngine(Deployable(network, spec, data.task.head(data.stats), dtype), device)
    return data.task.device.model(spec, data.splits.classes, engine, IGNORE)


def evaluate(
    model: Model,
    reader: Reader,
    data: PreparedData,
    limit: int | None = None,
    accelerator: Accelerator | None = None,
) -> Scorer:
    """Score a model on the samples of `reader`, at the resolution of the labels.

    Args:
        model: the model to score.
        reader: a split of `data`, or part of one.
        data: the data set.
        limit: use only the first `limit` samples; None = all.
        accelerator: divides the samples among its processes, which all must call. All get the exact scores over all
            samples, as these are computed from integer counts. None = a single process.

    Raises:
        UserError: an image cannot be read or scored, in this or another process.
        StoppedSafely: with several processes, one has been asked to stop.
    """
    rank, world = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    scorer = new_scorer(data)
    samples = eval_samples(reader, data, limit, rank, world)
    if accelerator is None or world == 1:
        for sample in counted(samples):
            _score(model, sample, scorer)
        return scorer
    for _ in range(-(-len(range(len(reader))[:limit]) // world)):
        problem = pending_request()
        try:
            for sample in islice(samples, 1):
                _score(model, sample, scorer)
        except UserError as error:
            problem = error  # raised once the others know
        sum_unless_stopped([], accelerator, problem)
    _merge(scorer, accelerator)
    return scorer


def new_scorer(data: PreparedData) -> Scorer:
    """A scorer of the data's task and classes."""
    return data.task.device.scorer([info.name for info in data.splits.classes])


def _score(model: Model, sample: EvalSample, scorer: Scorer) -> None:
    _, image, truth, valid = sample
    scorer.update(model(image), truth, valid)


def _merge(scorer: Scorer, accelerator: Accelerator) -> None:
    """Add the counts of all other processes to those of this one."""
    counts = scorer.counts()
    merged = sum_over_processes([int(number) for array in counts for number in array.flat], accelerator)
    pieces = np.split(np.array(merged, np.int64), np.cumsum([array.size for array in counts])[:-1])
    for array, piece in zip(counts, pieces, strict=True):
        array[...] = piece.reshape(array.shape)
