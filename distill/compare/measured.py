"""One model of a comparison, measured."""

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
from deploy.loading import load
from deploy.tasks.segmentation.model import SegmentationModel
from distill.compare.subjects import Subject

VAL = "val"


@dataclass(frozen=True, eq=False)
class Measured:
    """A model with what it said on the split."""

    name: str
    model: SegmentationModel
    findings: Findings
    curve: Sweep
    """Of the class looked at."""
    best: Best
    """The best F1 that a threshold could give on the split itself."""
    temperature: float | None
    """What its scores want on top of what it does, by `val`; None where there is no such data."""

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """Of the model."""
        return self.model.classes


def measure(
    subject: Subject, split: str, positive: int, backend: str = "auto", precision: str = "auto"
) -> Measured:
    """Run a model over the split, and over `val` for its temperature. Raises `UserError` as `load` and `analyze` do."""
    model = load(subject.bundle, backend, precision=precision)
    assert isinstance(model, SegmentationModel)
    has_val = (subject.data / VAL / "images").is_dir() and (subject.data / VAL / "masks").is_dir()
    temperature = temperature_of(model, subject.samples(VAL)) if has_val else None
    findings = analyze(model, subject.samples(split), positive, temperature)
    curve = sweep(findings.histogram)
    return Measured(subject.name, model, findings, curve, best_f1(curve), temperature)


def compare_all(measured: Sequence[Measured], seed: int = 0) -> list[tuple[str, str, Comparison]]:
    """Every pair of models, in the order in which they were given."""
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
    """Write pictures of the `count` images with the lowest mIoU, by its mean over the models, worst first, into `out`.

    Pictures there of an earlier comparison are removed. Images without a valid pixel are left out.
    """
    mean = np.mean([one.findings.images().miou for one in measured], axis=0)
    ranked = [int(index) for index in np.argsort(mean, kind="stable") if not np.isnan(mean[index])]
    ranks = {index: rank for rank, index in enumerate(ranked[:count])}
    for old in out.glob("[0-9][0-9][0-9]-*.png"):
        old.unlink()
    binary, paths = (positive if len(measured[0].classes) == 2 else None), []
    for index, views in enumerate(zip(*(one.samples(split) for one in subjects), strict=True)):
        if index in ranks:
            name, image, label, valid = views[0]
            own = zip(
                measured, views, strict=True
            )  # of other channels, a model has another image of the place
            predictions = [(one.name, one.model(view[1]).labels) for one, view in own]
            picture = error_picture(image, label, valid, predictions, measured[0].classes, binary)
            paths.append(out / f"{ranks[index] + 1:03d}-{name}.png")
            write_png(paths[-1], picture)
    return sorted(paths)
