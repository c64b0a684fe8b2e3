"""Measurement of the models of a comparison."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from deploy.analysis.collect import Findings, analyze, temperature_of
from deploy.analysis.curves import Best, Sweep, best_f1, sweep
from deploy.analysis.paired import Comparison, compare_images
from deploy.analysis.pictures import error_picture
from deploy.bundle.manifest import ClassInfo
from deploy.files.images import write_png
from deploy.heartbeat import counted
from deploy.loading import load
from deploy.tasks.segmentation.model import SegmentationModel
from distill.compare.subjects import Subject

VAL = "val"


@dataclass(frozen=True, eq=False)
class Measured:
    """A model with its results on the split."""

    name: str
    model: SegmentationModel
    findings: Findings
    curve: Sweep
    """Threshold curves of the positive class."""
    best: Best
    """The best F1 that any threshold reaches on the split itself."""
    temperature: float | None
    """Temperature fitted on `val`, on top of the one that the bundle applies; None if there is no such data."""

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """Classes of the model."""
        return self.model.classes


def measure(
    subject: Subject, split: str, positive: int, backend: str = "auto", precision: str = "auto"
) -> Measured:
    """Run a model on a split, and on `val` to fit its temperature.

    Args:
        subject: the model and its data.
        split: name of the split.
        positive: the class of the curves.
        backend: what runs the bundle.
        precision: of the model in the bundle.

    Raises:
        UserError: the bundle cannot be loaded, or the data cannot be analyzed.
    """
    model = load(subject.bundle, backend, precision=precision)
    assert isinstance(model, SegmentationModel)
    has_val = (subject.data / VAL / "images").is_dir() and (subject.data / VAL / "masks").is_dir()
    temperature = temperature_of(model, subject.samples(VAL)) if has_val else None
    findings = analyze(model, subject.samples(split), positive, temperature)
    curve = sweep(findings.histogram)
    return Measured(subject.name, model, findings, curve, best_f1(curve), temperature)


def compare_all(measured: Sequence[Measured], seed: int = 0) -> list[tuple[str, str, Comparison]]:
    """Compare every pair of models, in the given order."""
    return [
        (one.name, two.name, compare_images(one.findings.confusions, two.findings.confusions, seed=seed))
        for one, two in combinations(measured, 2)
    ]


def write_worst(
    subjects: Sequence[Subject],
    measured: Sequence[Measured],
    split: str,
    positive: int,
    out: Path,
    count: int,
) -> list[Path]:
    """Draw the images with the lowest mIoU (mean over the models), the worst first.

    Images without a valid pixel are left out.

    Args:
        subjects: the models and their data.
        measured: their results, in the same order.
        split: name of the split.
        positive: the class of the curves.
        out: folder of the pictures; those of an earlier comparison are removed.
        count: number of images.

    Returns:
        The paths of the pictures, in order.
    """
    mean = np.mean([one.findings.images().miou for one in measured], axis=0)
    ranked = [int(index) for index in np.argsort(mean, kind="stable") if not np.isnan(mean[index])]
    ranks = {index: rank for rank, index in enumerate(ranked[:count])}
    for old in out.glob("[0-9][0-9][0-9]-*.png"):
        old.unlink()
    binary, paths = (positive if len(measured[0].classes) == 2 else None), []
    places = zip(*(one.samples(split) for one in subjects), strict=True)
    for index, views in enumerate(counted(places, len(mean))):
        if index in ranks:
            name, image, label, valid = views[0]
            # Each model predicts its own view, because models may read different channels of a place.
            own = zip(measured, views, strict=True)
            predictions = [(one.name, one.model(view[1]).labels) for one, view in own]
            picture = error_picture(image, label, valid, predictions, measured[0].classes, binary)
            paths.append(out / f"{ranks[index] + 1:03d}-{name}.png")
            write_png(paths[-1], picture)
    return sorted(paths)
