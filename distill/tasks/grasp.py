"""Grasp detection in training: maps of quality, angle and width."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deploy.bundle.manifest import InputSpec, OutputSpec
from deploy.errors import UserError
from deploy.evaluation.receipt import Sample as EvalSample
from deploy.tasks.grasp.geometry import GOOD, MAPS
from deploy.tasks.grasp.task import GRASP as DEVICE
from deploy.tasks.task import Task
from distill.config import DataConfig, RunConfig
from distill.data.grasp.sample import GraspSample
from distill.data.grasp.stats import grasp_stats
from distill.data.grasp.view import GraspView
from distill.data.registry import GRASP_DATASETS
from distill.data.sample import Batch
from distill.data.splits import Splits
from distill.data.stats import Stats
from distill.losses.distillation_loss import DistillationTerms
from distill.losses.expression import Term
from distill.losses.registry import GRASP_LOSSES
from distill.losses.supervised.grasp import QualityKind, check_taught, quality_kind, quality_of
from distill.losses.task_loss import parse_task_terms, task_loss
from distill.tasks.class_options import refuse_class_options
from distill.tasks.segmentation import image_array
from distill.tasks.task import Head, TaskEntry, TaskLoss

DISTILLATION_LOSSES = ("grasp_kl", "maps", "mse", "feature", "cosine", "at", "skd")
"""Those of grasp maps, and those that compare any numbers."""


def grasp_head(
    maps: Tensor, enlarged: Callable[[Tensor], Tensor], *, quality: QualityKind
) -> tuple[Tensor, Tensor]:
    """Labels that are 1 where a grasp is good, and the four maps at the size of the input.

    Maps are float32 N×4×H×W: quality in 0..1, cos 2θ, sin 2θ, and the width in 0..1 (see `deploy.tasks.grasp`).
    """
    full = enlarged(maps)
    good, angle, width = quality_of(full[:, :1], quality), full[:, 1:3], full[:, 3:].clamp(0, 1)
    return (good[:, 0] >= GOOD).to(torch.uint8), torch.cat([good, angle, width], dim=1)


@dataclass(frozen=True)
class GraspTask:
    """`TrainingTask` of data sets with grasp rectangles."""

    terms: tuple[Term, ...]
    quality: QualityKind
    """Form of the quality at the output of the run's networks (see `distill.losses.supervised.grasp`)."""
    outputs: int = len(MAPS)
    device: Task = DEVICE

    @property
    def qat_loss(self) -> str:
        """The loss on outputs that takes the quality in the form that the networks output."""
        return {"clamp": "maps", "sigmoid": "grasp_kl"}[self.quality]

    def check(self, config: RunConfig, splits: Splits, distillation: DistillationTerms) -> None:
        """No options for classes, no scale but linear, and only distillation losses that suit the maps."""
        refuse_class_options(config, "grasps", distillation, DISTILLATION_LOSSES)
        if config.data.scale != "linear":
            raise UserError(
                f"--data.scale {config.data.scale}: is not for grasps, whose depth is taken about its mean; use linear"
            )
        for option, terms in distillation.by_option.items():
            for term in terms:
                check_taught(option, term.loss, self.quality)

    def statistics(self, config: RunConfig, splits: Splits) -> Stats:
        """At network scale; of depth, about the mean of each image."""
        return grasp_stats(splits.train, config.data.size, splits.channels)  # pyright: ignore[reportArgumentType]

    def view(self, config: RunConfig, splits: Splits, stats: Stats, views: int = 0) -> GraspView:
        """Augmented images with target maps."""
        return GraspView(
            splits.train,  # pyright: ignore[reportArgumentType] - of a grasp data set it reads grasps
            size=config.data.size,
            channels=splits.channels,
            augment=config.augment,
            mean=stats.mean,
            seed=config.seed,
            views=views,
            cache=config.data.cache,
        )

    def loss(self, config: RunConfig, stats: Stats, device: torch.device) -> TaskLoss:
        """The terms against the target maps."""

        def loss(logits: Tensor, batch: Batch) -> Tensor:
            return task_loss(self.terms, GRASP_LOSSES, logits, batch.label, batch.labeled)

        return loss

    def structures(self, config: DataConfig, splits: Splits) -> None:
        """Labels are grasps."""

    def depth_channel(self, splits: Splits) -> int | None:
        """The channel called "depth"."""
        return splits.channels.index("depth") if "depth" in splits.channels else None

    def head(self, stats: Stats) -> Head:
        """Quality in 0..1, and where it is good."""
        return partial(grasp_head, quality=self.quality)

    def output_specs(self, spec: InputSpec, stats: Stats) -> tuple[OutputSpec, ...]:
        """Where grasps are good, and the maps."""
        size = (spec.height, spec.width)
        maps = "maps: quality 0..1, cos 2a, sin 2a, opening / half of the shorter side in 0..1"
        return (
            OutputSpec("labels", "uint8", ("batch", *size), "1 where a grasp is good (quality 1/2 or more)"),
            OutputSpec("logits", "float32", ("batch", self.outputs, *size), maps),
        )

    def arrays(self, sample: GraspSample, optical: bool) -> EvalSample:
        """Image H×W×C, grasps N×5, and which pixels were measured."""
        image = image_array(sample.image, optical)
        return sample.id, image, sample.grasps, np.asarray(np.isfinite(image).all(axis=2))

    def metadata(self, stats: Stats) -> dict[str, Any]:
        """Form of the quality."""
        return {"quality": self.quality}

    def check_metadata(self, path: Path, metadata: Mapping[str, Any], stats: Stats) -> None:
        """The quality must have the same form as in this run."""
        if metadata.get("quality", "clamp") == self.quality:
            return
        ours, theirs = ("a logit", "a number") if self.quality == "sigmoid" else ("a number", "a logit")
        raise UserError(
            f"{path}: gives the quality of a grasp as {theirs}, --loss.task asks for {ours} (bce alone has logits); use"
            " the loss that it was trained by, or another teacher"
        )


def _make(config: RunConfig, splits: Splits) -> GraspTask:
    terms = parse_task_terms(config.loss.task, GRASP_LOSSES)
    return GraspTask(terms, quality_kind(term.loss for term in terms))


ENTRY = TaskEntry(
    _make,
    losses=GRASP_LOSSES,
    heading="of grasp maps (--loss.task): bce",
    datasets=GRASP_DATASETS,
)
