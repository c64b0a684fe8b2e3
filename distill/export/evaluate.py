"""Scores of any model over any reader, through the device's own pre- and postprocessing."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from deploy.bundle.manifest import InputSpec
from deploy.errors import UserError
from deploy.evaluation.receipt import Sample as EvalSample
from deploy.evaluation.receipt import Scorer
from deploy.tasks.registry import task_named
from distill.data.grasp.sample import GraspSample
from distill.data.sample import IGNORE, Sample
from distill.data.splits import Reader, Splits
from distill.export.deployable import TorchEngine, deployable
from distill.training.distributed import sum_over_processes


def eval_samples(
    reader: Reader, optical: bool, limit: int | None = None, rank: int = 0, world: int = 1
) -> Iterator[EvalSample]:
    """The samples of a reader as the arrays that a device gets: uint8 for optical images, else float32 with NaN.

    The first `limit` of them, and of these every `world`-th from `rank` on.
    """
    for index in range(len(reader))[:limit][rank::world]:
        yield as_arrays(reader[index], optical)


def spread(positions: Sequence[int], limit: int) -> list[int]:
    """At most `limit` of the positions, evenly spread."""
    count = min(limit, len(positions))
    return [positions[index * len(positions) // count] for index in range(count)]


def as_arrays(sample: Sample | GraspSample, optical: bool) -> EvalSample:
    """One sample as arrays; the truth keeps its own size."""
    image = sample.image.permute(1, 2, 0).numpy()
    image = image.astype(np.uint8) if optical else image
    if isinstance(sample, GraspSample):
        return sample.id, image, sample.grasps, np.asarray(np.isfinite(image).all(axis=2))
    return sample.id, image, sample.label.numpy(), sample.valid.numpy()


def torch_model(
    network: nn.Module,
    spec: InputSpec,
    splits: Splits,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Callable[[np.ndarray], Any]:
    """The runtime's model of the data's task, with torch as its engine (see `Deployable` for `dtype`)."""
    engine = TorchEngine(deployable(network, spec, splits, dtype), device)
    return task_named(splits.task).model(spec, splits.classes, engine, IGNORE)


def evaluate(
    model: Callable[[np.ndarray], Any],
    reader: Reader,
    splits: Splits,
    limit: int | None = None,
    accelerator: Accelerator | None = None,
) -> Scorer:
    """Scores over the samples of `reader`, at the labels' own resolution.

    With an `accelerator` all its processes must call: each takes its share of the images, and all get the scores of
    all images, exactly, as these follow from integer counts.

    Raises:
        UserError: an image that cannot be read or scored, here or in another process.
    """
    rank, world = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    scorer, failure = new_scorer(splits), None
    try:
        for _, image, truth, valid in eval_samples(reader, splits.optical, limit, rank, world):
            scorer.update(model(image), truth, valid)
    except UserError as error:
        failure = error  # raised once the others know, who would wait for these counts
    if accelerator is not None:
        _merge(scorer, failure, accelerator)
    if failure is not None:
        raise failure
    return scorer


def new_scorer(splits: Splits) -> Scorer:
    """A scorer of the data's task and classes."""
    return task_named(splits.task).scorer([info.name for info in splits.classes])


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
