"""Segmentation as a task (see `deploy.tasks.task`), scored by the mIoU."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from deploy.backends.engine import Engine
from deploy.bundle.manifest import ClassInfo, InputSpec, Manifest
from deploy.evaluation.labeled_data import read_labeled, write_labeled
from deploy.evaluation.metric import MIOU
from deploy.evaluation.receipt import Sample
from deploy.evaluation.segmentation_metrics import SegmentationMetrics
from deploy.tasks.segmentation.formats import FORMATS
from deploy.tasks.segmentation.model import SegmentationModel, SegmentationResult
from deploy.tasks.task import Task
from deploy.visualize import colorize, overlay, render, shares


class SegmentationScorer:
    """Scores by the mIoU (see `deploy.evaluation.segmentation_metrics`)."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self.metrics = SegmentationMetrics(len(self.classes))

    def update(self, result: Any, truth: np.ndarray, valid: np.ndarray) -> None:
        """Compare the `labels` of a result with the true labels H×W where `valid`, and count them."""
        self.metrics.update(result.labels, truth, valid)

    def counts(self) -> list[np.ndarray]:
        """The counts of pixels by label and prediction, and of boundary pixels."""
        return [self.metrics.confusion, self.metrics.boundary]

    def score(self) -> float:
        """mIoU."""
        return self.metrics.scores().miou

    def details(self) -> dict[str, float | None]:
        """Boundary F1, pixel accuracy, and the IoU of each class."""
        scores = self.metrics.scores()
        each = {f"IoU {name}": iou for name, iou in zip(self.classes, scores.iou, strict=True)}
        return {"boundary F1": scores.boundary_f1, "pixel accuracy": scores.pixel_accuracy, **each}


def _model(
    spec: InputSpec, classes: Sequence[ClassInfo], engine: Engine, ignore_label: int = 255
) -> SegmentationModel:
    return SegmentationModel(spec, tuple(classes), engine, ignore_label)


def _decide(
    model: SegmentationModel, threshold: float | None, temperature: float | None
) -> SegmentationModel:
    return replace(model, threshold=threshold, temperature=temperature)


def _read(folder: Path, manifest: Manifest) -> Iterator[Sample]:
    return read_labeled(folder, len(manifest.classes), manifest.ignore_label, manifest.input)


def _panels(
    image: np.ndarray, truth: np.ndarray, results: Sequence[SegmentationResult], classes: Sequence[ClassInfo]
) -> list[np.ndarray]:
    """The image and all labels as colors; the last result has a legend."""
    *others, last = (result.labels for result in results)
    colors = [colorize(labels, classes) for labels in (truth, *others)]
    return [render(image), *colors, overlay(image, last, classes, opacity=1.0)]


def _words(result: SegmentationResult, classes: Sequence[ClassInfo]) -> str:
    """The share of each class, largest first."""
    found = zip(shares(result.labels, len(classes)), classes, strict=True)
    ranked = sorted(((share, info.name) for share, info in found if share > 0), reverse=True)
    return ", ".join(f"{name} {100 * share:.1f} %" for share, name in ranked) or "no data"


SEGMENTATION = Task(
    "segmentation",
    metric=MIOU,
    model=_model,
    scorer=SegmentationScorer,
    truth="masks",
    read=_read,
    write=write_labeled,
    panels=_panels,
    words=_words,
    formats=FORMATS,
    usual=("mask", "overlay"),
    raw="probabilities",
    decide=_decide,
    confusion=lambda scorer: scorer.metrics.confusion,
)
