"""Scores of any model over any reader, through the device's own pre- and postprocessing."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from deploy.bundle import InputSpec
from deploy.errors import UserError
from deploy.metrics import Scores, SegmentationMetrics
from deploy.runtime import Model, Result
from distill.data.sample import Sample
from distill.data.splits import Reader, Splits
from distill.deployable import Deployable, TorchEngine
from distill.processes import sum_over_processes

EvalSample = tuple[str, np.ndarray, np.ndarray, np.ndarray]
"""id, raw image H×W×C, label H×W, valid H×W."""


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


def as_arrays(sample: Sample, optical: bool) -> EvalSample:
    """One sample as arrays; the label keeps its own size."""
    image = sample.image.permute(1, 2, 0).numpy()
    image = image.astype(np.uint8) if optical else image
    return sample.id, image, sample.label.numpy(), sample.valid.numpy()


def torch_model(
    network: nn.Module,
    spec: InputSpec,
    splits: Splits,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Model:
    """The runtime's `Model` with torch as its engine (see `Deployable` for `dtype`)."""
    return Model(spec, splits.classes, TorchEngine(Deployable(network, spec, dtype), device))


def evaluate(
    model: Callable[[np.ndarray], Result],
    reader: Reader,
    splits: Splits,
    limit: int | None = None,
    accelerator: Accelerator | None = None,
) -> Scores:
    """Scores over the valid pixels of `reader`, at the labels' own resolution.

    With an `accelerator` all its processes must call: each takes its share of the images, and all get the scores of
    all images, exactly, as these follow from integer counts.

    Raises:
        UserError: an image that cannot be read or scored, here or in another process.
    """
    rank, world = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    metrics, failure = SegmentationMetrics(len(splits.classes)), None
    try:
        for _, image, label, valid in eval_samples(reader, splits.optical, limit, rank, world):
            metrics.update(model(image).labels, label, valid)
    except UserError as error:
        failure = error  # raised once the others know, who would wait for these counts
    if accelerator is not None:
        _merge(metrics, failure, accelerator)
    if failure is not None:
        raise failure
    return metrics.scores()


def _merge(metrics: SegmentationMetrics, failure: UserError | None, accelerator: Accelerator) -> None:
    """Add the counts of all other processes to those of this one."""
    counts = [metrics.confusion, metrics.boundary]
    numbers = [int(failure is not None), *(number for array in counts for number in array.flat)]
    failed, *merged = sum_over_processes(numbers, accelerator)
    if failed and failure is None:
        raise UserError("another process could not score its share of the images; see its line")
    pieces = np.split(np.array(merged, np.int64), [metrics.confusion.size])
    for array, piece in zip(counts, pieces, strict=True):
        array[...] = piece.reshape(array.shape)
