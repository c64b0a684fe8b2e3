"""What the networks of a run predict for the test images that the run keeps for devices."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from deploy.analysis.by_class import ClassScores, class_scores
from deploy.analysis.collect import analyze
from deploy.analysis.curves import best_f1, sweep
from deploy.errors import UserError
from deploy.evaluation.labeled_data import DATA
from deploy.evaluation.per_image import Evaluation, evaluate_images
from deploy.evaluation.receipt import Sample
from deploy.loading import load
from deploy.tasks.registry import task_of
from deploy.tasks.segmentation.model import SegmentationModel
from deploy.tasks.task import Model, Task
from distill.compare.measured import Measured
from distill.page.records import RowRecord, RunRecord

TEST = "test"
BACKEND = "onnxruntime"


@dataclass(frozen=True, eq=False)
class Predictor:
    """One network of a run with what it reaches on the images."""

    name: str
    """As in the report, such as "student int8"."""
    model: Model
    found: Evaluation
    confusion: np.ndarray | None
    """int64 K×(K+1): a row for each label; None if labels are not classes."""
    classes: list[ClassScores]
    """Scores of each class; empty if labels are not classes."""


def task_of_run(run: RunRecord) -> Task:
    """The task of a run's bundles."""
    return task_of(run.manifest)


def samples_of(run: RunRecord) -> Iterator[Sample]:
    """The test images that the run keeps, with their truth.

    Raises:
        UserError: they are missing or damaged.
    """
    folder = run.folder / DATA / TEST
    if not (folder / "images").is_dir():
        raise UserError(
            f"{folder / 'images'}: no such folder; run it again with --resume to write its test images"
        )
    return task_of_run(run).read(folder, run.manifest)


def predictors_of(run: RunRecord) -> list[Predictor]:
    """Run the teacher and each form of the student on the test images.

    Raises:
        UserError: a bundle or an image is missing or damaged.
    """
    return [_predictor(run, row) for row in run.deployed]


def _predictor(run: RunRecord, row: RowRecord) -> Predictor:
    task, names = task_of_run(run), [one.name for one in run.manifest.classes]
    assert row.form is not None  # of the deployed
    model = load(row.bundle(run.folder), BACKEND, precision=row.form[1])
    found = evaluate_images(model, samples_of(run), lambda: task.scorer(names))
    confusion = None if task.confusion is None else task.confusion(found.total)
    return Predictor(
        row.name, model, found, confusion, [] if confusion is None else class_scores(names, confusion)
    )


def threshold_curves(run: RunRecord, predictor: Predictor) -> Measured | None:
    """Histograms and curves of the second of two classes; None where there are not two."""
    model = predictor.model
    if not isinstance(model, SegmentationModel) or len(model.classes) != 2:
        return None
    findings = analyze(model, samples_of(run), 1)
    curve = sweep(findings.histogram)
    return Measured(predictor.name, model, findings, curve, best_f1(curve), None)


def chosen_images(found: Evaluation, each: int) -> list[tuple[str, int]]:
    """The images to show: `each` of the worst, of those around the median and of the best, none of them twice.

    Returns:
        "worst", "median" or "best" and the position among the evaluated images, in this order.
    """
    ranked = found.worst_first()
    middle = max(0, (len(ranked) - each) // 2)
    groups: Sequence[tuple[str, Sequence[int]]] = (
        ("worst", ranked[:each]),
        ("best", ranked[::-1][:each]),
        ("median", ranked[middle : middle + each]),
    )
    chosen: dict[int, str] = {}
    for kind, positions in groups:
        for position in positions:
            chosen.setdefault(position, kind)
    order = ("worst", "median", "best")
    return sorted(
        ((kind, position) for position, kind in chosen.items()),
        key=lambda one: (order.index(one[0]), ranked.index(one[1])),
    )
