"""Scores of any model over any reader, through the device's own pre- and postprocessing."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from torch import nn

from deploy.bundle import InputSpec
from deploy.metrics import Scores, SegmentationMetrics
from deploy.runtime import Model, Result
from distill.data.sample import Sample
from distill.data.splits import Reader, Splits
from distill.deployable import Deployable, TorchEngine

EvalSample = tuple[str, np.ndarray, np.ndarray, np.ndarray]
"""id, raw image H×W×C, label H×W, valid H×W."""


def eval_samples(reader: Reader, optical: bool, limit: int | None = None) -> Iterator[EvalSample]:
    """The samples of a reader as the arrays that a device gets: uint8 for optical images, else float32 with NaN."""
    for index in islice(range(len(reader)), limit):
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
    model: Callable[[np.ndarray], Result], reader: Reader, splits: Splits, limit: int | None = None
) -> Scores:
    """Scores over the valid pixels of `reader`, at the labels' own resolution."""
    metrics = SegmentationMetrics(len(splits.classes))
    for _, image, label, valid in eval_samples(reader, splits.optical, limit):
        metrics.update(model(image).labels, label, valid)
    return metrics.scores()
