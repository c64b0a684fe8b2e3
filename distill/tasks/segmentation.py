"""Segmentation in training: a class for each pixel."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deploy.bundle.manifest import InputSpec, OutputSpec
from deploy.errors import UserError
from deploy.evaluation.receipt import Sample as EvalSample
from deploy.inference.normalize import raw_mean
from deploy.tasks.segmentation.task import SEGMENTATION as DEVICE
from deploy.tasks.task import Task
from distill.config import DataConfig, RunConfig
from distill.data.registry import SEGMENTATION_DATASETS
from distill.data.sample import MAX_CLASSES, Batch, Sample
from distill.data.scaling import in_scale
from distill.data.splits import Splits
from distill.data.stats import Stats, compute_stats, images_by_class
from distill.data.structures import Structures, measure_structures
from distill.data.train_view import TrainView
from distill.losses.distillation_loss import DistillationTerms
from distill.losses.expression import Term
from distill.losses.registry import SEGMENTATION_LOSSES
from distill.losses.supervised.class_weights import class_weights_of
from distill.losses.task_loss import parse_task_terms, task_loss
from distill.tasks.task import Head, TaskEntry, TaskLoss


def argmax_head(logits: Tensor, enlarged: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """The class of the highest score of each pixel, and the scores at the network's stride.

    Of two classes only the difference is resized: its sign decides.
    """
    if logits.shape[1] == 2:
        return (enlarged(logits[:, 1:] - logits[:, :1])[:, 0] > 0).to(torch.uint8), logits
    return enlarged(logits).argmax(1).to(torch.uint8), logits


def segmentation_loss(terms: Sequence[Term], class_weights: Tensor | None = None) -> TaskLoss:
    """The weighted sum of losses against labels.

    Args:
        terms: one or more of `SEGMENTATION_LOSSES`.
        class_weights: K positive weights on the device of the logits; None weighs all classes alike.
    """

    def loss(logits: Tensor, batch: Batch) -> Tensor:
        return task_loss(terms, SEGMENTATION_LOSSES, logits, batch.label, batch.labeled, class_weights)

    return loss


@dataclass(frozen=True)
class SegmentationTask:
    """`TrainingTask` of data sets with class labels."""

    terms: tuple[Term, ...]
    outputs: int
    device: Task = DEVICE
    qat_loss: str = "kl(t=2)"

    def check(self, config: RunConfig, splits: Splits, distillation: DistillationTerms) -> None:
        """Class weights: one per class, or none. `lovasz_hinge` needs two classes."""
        classes, weights = len(splits.classes), len(config.loss.class_weight_values)
        if classes > MAX_CLASSES:
            raise UserError(f"the data has {classes} classes; a bundle has at most {MAX_CLASSES}")
        if weights not in (0, classes):
            raise UserError(
                f"--loss.class-weight-values: {weights} weights for {classes} classes; give one a class"
            )
        if classes != 2 and any(term.loss == "lovasz_hinge" for term in self.terms):
            raise UserError(
                f"--loss.task: lovasz_hinge is for two classes, the data has {classes}; use lovasz"
            )

    def statistics(self, config: RunConfig, splits: Splits) -> Stats:
        """Over valid pixels; mean 0 and deviation 1 where images or patches are normalized by their own statistics."""
        reader, scale = in_scale(config.data.scale, splits.train, splits.channels)
        stats, count = compute_stats(reader, len(splits.classes)), len(splits.channels)
        if config.data.normalize == "set":
            return replace(stats, **asdict(scale))
        return replace(stats, mean=(0.0,) * count, std=(1.0,) * count, normalize=config.data.normalize)

    def view(self, config: RunConfig, splits: Splits, stats: Stats, views: int = 0) -> TrainView:
        """Augmented images with their labels; those beyond the images of `stats` have none."""
        data = config.data
        return TrainView(
            splits.train,
            size=data.size,
            resize=data.resize,
            augment=config.augment,
            mean=raw_mean(stats),
            optical=splits.optical,
            seed=config.seed,
            views=views,
            cache=data.cache,
            normalize=data.normalize,
            class_images=images_by_class(stats),
            labeled=stats.images,
        )

    def loss(self, config: RunConfig, stats: Stats, device: torch.device) -> TaskLoss:
        """The terms, with classes weighted as the configuration says."""
        weights = class_weights_of(
            config.loss.class_weights, config.loss.class_weight_values, stats.class_pixels
        )
        return segmentation_loss(self.terms, None if weights is None else weights.to(device))

    def structures(self, config: DataConfig, splits: Splits) -> Structures | None:
        """Of a sample of the training masks."""
        return measure_structures(splits.train, [info.name for info in splits.classes], config)

    def depth_channel(self, splits: Splits) -> None:
        """No channel is treated as depth."""

    def head(self, stats: Stats) -> Head:
        """Arg-max over classes."""
        return argmax_head

    def output_specs(self, spec: InputSpec, stats: Stats) -> tuple[OutputSpec, ...]:
        """Class ids and scores."""
        scores = "class scores before softmax, at the stride"
        return (
            OutputSpec("labels", "uint8", ("batch", spec.height, spec.width), "class id of each pixel"),
            OutputSpec("logits", "float32", ("batch", self.outputs, "h", "w"), scores),
        )

    def arrays(self, sample: Sample, optical: bool) -> EvalSample:
        """Image H×W×C, labels H×W, and where they are known."""
        return sample.id, image_array(sample.image, optical), sample.label.numpy(), sample.labeled.numpy()

    def metadata(self, stats: Stats) -> dict[str, Any]:
        """No further entries: classes and normalization are in every checkpoint."""
        return {}

    def check_metadata(self, path: Path, metadata: Mapping[str, Any], stats: Stats) -> None:
        """Nothing more to compare than classes and normalization, which are compared for every task."""


def image_array(image: Tensor, optical: bool) -> np.ndarray:
    """A sample's image C×H×W as a device gets it: H×W×C, uint8 where `optical`, else float32."""
    array = image.permute(1, 2, 0).numpy()
    return array.astype(np.uint8) if optical else array


def _make(config: RunConfig, splits: Splits) -> SegmentationTask:
    return SegmentationTask(parse_task_terms(config.loss.task, SEGMENTATION_LOSSES), len(splits.classes))


ENTRY = TaskEntry(
    _make,
    losses=SEGMENTATION_LOSSES,
    heading="against labels (--loss.task), added up with weights: ce + 0.5*dice",
    datasets=SEGMENTATION_DATASETS,
)
