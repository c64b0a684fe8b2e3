"""Pictures of the images on which a model does worst."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from deploy.analysis.pictures import error_picture
from deploy.evaluation.receipt import Sample
from deploy.files.images import write_png
from deploy.heartbeat import counted
from distill.evaluate.result import Result
from distill.reporting.panels import side_by_side


def write_worst(out: Path, model: Callable[[np.ndarray], Any], result: Result, count: int) -> list[Path]:
    """Draw the images with the lowest scores as `NNN-name.png`, the worst first; pictures of earlier runs are removed.

    Classes are drawn as image, label, prediction and errors; the results of other tasks as the task draws them.

    Returns:
        The paths of the pictures, in order.
    """
    for old in out.glob("[0-9][0-9][0-9]-*.png"):
        old.unlink()
    ranks = {index: rank for rank, index in enumerate(result.found.worst_first()[:count], start=1)}
    paths = []
    for index, sample in enumerate(counted(result.source.samples())):
        if index in ranks:
            paths.append(out / f"{ranks[index]:03d}-{Path(sample[0]).name}.png")
            write_png(paths[-1], picture_of(sample, model(sample[1]), result))
    return sorted(paths)


def picture_of(sample: Sample, predicted: Any, result: Result) -> np.ndarray:
    """A sample and what was predicted for it, side by side, uint8 H×W×3."""
    _, image, truth, valid = sample
    if result.task.confusion is None:
        return side_by_side(result.task.panels(image, truth, [predicted], result.classes))
    return error_picture(image, truth, valid, [("prediction", predicted.labels)], result.classes, None)
