"""What a network is for: how its results are made and scored, and how their truth is kept in files.

A network of either task gives `labels` (class ids, compared hop by hop) and `logits`. In segmentation labels are what
is wanted; in grasp detection they say where a grasp is good, and `logits` are the maps that grasps are decoded from.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploy.backends import Engine
from deploy.bundle import ClassInfo, InputSpec, Manifest
from deploy.verify import Sample, Scorer


@dataclass(frozen=True)
class Task:
    """One task; `task_of` finds that of a bundle."""

    name: str
    metric: str
    """The name of the score, for people."""
    key: str
    """The same for files."""
    model: Callable[[InputSpec, Sequence[ClassInfo], Engine, int], Any]
    """From input, classes, engine and ignore label to a callable from an image to a result: `deploy.runtime.Model`,
    `deploy.grasp.runtime.GraspModel`."""
    scorer: Callable[[Sequence[str]], Scorer]
    """A fresh scorer for classes of these names."""
    truth: str
    """Folder of the truth, beside `images`, in labelled data (`deploy.labelled`)."""
    read: Callable[[Path, Manifest], Iterator[Sample]]
    """The samples of a folder of labelled data, checked."""
    write: Callable[[Path, Iterable[Sample]], int]
    """Write samples as such a folder; their number."""


def task_of(manifest: Manifest) -> Task:
    """The task of a bundle."""
    return task_named(manifest.task)


def model_of(manifest: Manifest, engine: Engine) -> Any:
    """The model of a bundle on an engine."""
    return task_of(manifest).model(manifest.input, manifest.classes, engine, manifest.ignore_label)


def task_named(name: str) -> Task:
    """The task called "segmentation" or "grasp". Only what belongs to it is imported."""
    if name == "grasp":
        from deploy.grasp.task import GRASP

        return GRASP
    return SEGMENTATION


class SegmentationScorer:
    """mIoU, pixel by pixel (see `deploy.metrics`)."""

    def __init__(self, classes: Sequence[str]) -> None:
        from deploy.metrics import SegmentationMetrics

        self.classes = tuple(classes)
        self.metrics = SegmentationMetrics(len(self.classes))

    def update(self, result: Any, truth: np.ndarray, valid: np.ndarray) -> None:
        """Count the `labels` of a result against labels H×W where `valid`."""
        self.metrics.update(result.labels, truth, valid)

    def counts(self) -> list[np.ndarray]:
        """Pixels by label and prediction, and pixels of boundaries."""
        return [self.metrics.confusion, self.metrics.boundary]

    def score(self) -> float:
        """mIoU."""
        return self.metrics.scores().miou

    def details(self) -> dict[str, float | None]:
        """Boundary F1, pixel accuracy, and the IoU of each class."""
        scores = self.metrics.scores()
        each = {f"IoU {name}": iou for name, iou in zip(self.classes, scores.iou, strict=True)}
        return {"boundary F1": scores.boundary_f1, "pixel accuracy": scores.pixel_accuracy, **each}


def _segmentation_model(
    spec: InputSpec, classes: Sequence[ClassInfo], engine: Engine, ignore_label: int = 255
) -> Any:
    from deploy.runtime import Model

    return Model(spec, tuple(classes), engine, ignore_label)


def _read_masks(folder: Path, manifest: Manifest) -> Iterator[Sample]:
    from deploy.labelled import read_labelled

    return read_labelled(folder, len(manifest.classes), manifest.ignore_label, manifest.input)


def _write_masks(folder: Path, samples: Iterable[Sample]) -> int:
    from deploy.labelled import write_labelled

    return write_labelled(folder, samples)


SEGMENTATION = Task(
    "segmentation",
    metric="mIoU",
    key="miou",
    model=_segmentation_model,
    scorer=SegmentationScorer,
    truth="masks",
    read=_read_masks,
    write=_write_masks,
)
