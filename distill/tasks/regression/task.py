"""Dense regression as a task of training (`distill.tasks.task`)."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deploy.bundle.manifest import InputSpec, OutputSpec
from deploy.errors import UserError
from deploy.evaluation.receipt import Sample as EvalSample
from deploy.inference.normalize import raw_mean
from deploy.tasks.regression.levels import level_edges
from deploy.tasks.regression.task import REGRESSION as DEVICE
from deploy.tasks.task import Task
from distill.config import DataConfig, RunConfig
from distill.data.readers import Changed
from distill.data.sample import Batch, Sample
from distill.data.scaling import in_scale
from distill.data.splits import Splits
from distill.data.stats import Stats, compute_stats
from distill.losses.distillation_loss import DistillationTerms
from distill.losses.expression import Term
from distill.losses.task_loss import parse_task_terms, task_loss
from distill.tasks.class_options import refuse_class_options
from distill.tasks.regression.data import MapView, open_tabletop_depth
from distill.tasks.regression.losses import LOSSES
from distill.tasks.segmentation import image_array
from distill.tasks.task import Head, TaskEntry, TaskLoss

DISTILLATION_LOSSES = ("mse", "feature", "cosine", "at", "skd")
"""Those that compare any numbers."""
TOLERANCE = 0.05
"""Largest difference between the maps of two data sets: of means, in standard deviations; of deviations, relative."""


def regression_head(
    maps: Tensor, enlarged: Callable[[Tensor], Tensor], *, mean: float, std: float
) -> tuple[Tensor, Tensor]:
    """The level of each value, and the map in its unit at the size of the input, float32 N×1×H×W."""
    values = enlarged(maps) * std + mean
    edges = torch.from_numpy(level_edges(mean, std)).to(values)[:, None, None]
    return (values >= edges).to(values.dtype).sum(1).to(torch.uint8), values


@dataclass(frozen=True)
class RegressionTask:
    """`TrainingTask` of data sets with a map of numbers. Networks return it standardized by the training maps."""

    terms: tuple[Term, ...]
    outputs: int = 1
    device: Task = DEVICE
    qat_loss: str = "mse"

    def check(self, config: RunConfig, splits: Splits, distillation: DistillationTerms) -> None:
        """No options and losses for classes."""
        refuse_class_options(config, "maps", distillation, DISTILLATION_LOSSES)

    def statistics(self, config: RunConfig, splits: Splits) -> Stats:
        """Of images and maps over valid pixels; the deviation of constant maps counts as 1."""
        reader, scale = in_scale(config.data.scale, splits.train, splits.channels)
        stats = compute_stats(Changed(reader, _map_as_channel), num_classes=1)
        *mean, target_mean = stats.mean
        *std, target_std = stats.std
        target = target_mean, target_std
        return Stats(tuple(mean), tuple(std), (), stats.images, target=target, **asdict(scale))

    def view(self, config: RunConfig, splits: Splits, stats: Stats, views: int = 0) -> MapView:
        """Augmented images with maps."""
        return MapView(
            splits.train,
            size=config.data.size,
            optical=splits.optical,
            augment=config.augment,
            mean=raw_mean(stats),
            seed=config.seed,
            views=views,
            cache=config.data.cache,
        )

    def loss(self, config: RunConfig, stats: Stats, device: torch.device) -> TaskLoss:
        """The terms against the standardized map."""
        mean, std = stats.target

        def loss(logits: Tensor, batch: Batch) -> Tensor:
            return task_loss(self.terms, LOSSES, logits, (batch.label - mean) / std, batch.labeled)

        return loss

    def structures(self, config: DataConfig, splits: Splits) -> None:
        """Labels are numbers."""

    def depth_channel(self, splits: Splits) -> None:
        """No channel is treated as depth."""

    def head(self, stats: Stats) -> Head:
        """The map in its unit, and its levels."""
        mean, std = stats.target
        return partial(regression_head, mean=mean, std=std)

    def output_specs(self, spec: InputSpec, stats: Stats) -> tuple[OutputSpec, ...]:
        """Levels and the map."""
        size = (spec.height, spec.width)
        edges = ", ".join(f"{edge:.4g}" for edge in level_edges(*stats.target))
        return (
            OutputSpec("labels", "uint8", ("batch", *size), f"level of the value, between {edges}"),
            OutputSpec(
                "logits", "float32", ("batch", 1, *size), "the value, in the unit of the training maps"
            ),
        )

    def arrays(self, sample: Sample, optical: bool) -> EvalSample:
        """Image H×W×C, map H×W and valid H×W."""
        return sample.id, image_array(sample.image, optical), sample.label.numpy(), sample.labeled.numpy()

    def metadata(self, stats: Stats) -> dict[str, Any]:
        """Mean and deviation that standardize the maps."""
        return {"target": list(stats.target)}

    def check_metadata(self, path: Path, metadata: Mapping[str, Any], stats: Stats) -> None:
        """The maps must have been standardized by nearly the same mean and deviation."""
        (mean, std), (their_mean, their_std) = stats.target, metadata.get("target", (np.inf, np.inf))
        if max(abs(their_mean - mean) / std, abs(their_std / std - 1)) > TOLERANCE:
            raise UserError(
                f"{path}: was trained on maps of mean {their_mean:.4g} and deviation {their_std:.4g}, this data has"
                f" {mean:.4g} and {std:.4g}; use a teacher trained on this data, or train one here"
                " (--teacher-train.steps)"
            )


def _map_as_channel(sample: Sample) -> Sample:
    """For `compute_stats`: the map is the last channel of the image, and all pixels are of class 0."""
    image = torch.cat([sample.image, sample.label[None].to(sample.image)])
    return replace(sample, image=image, label=torch.zeros_like(sample.label, dtype=torch.int64))


def _make(config: RunConfig, splits: Splits) -> RegressionTask:
    del splits
    return RegressionTask(parse_task_terms(config.loss.task, LOSSES))


ENTRY = TaskEntry(
    _make,
    losses=LOSSES,
    heading="of a map of numbers (--loss.task): smooth_l1(beta=1)",
    datasets={"tabletop_depth": open_tabletop_depth},
)
