"""The images of a page: pictures in rows for every reader, and layers of class ids for the viewer."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deploy.analysis.pictures import error_picture
from deploy.bundle.manifest import ClassInfo
from deploy.evaluation.receipt import Sample
from deploy.heartbeat import counted
from deploy.tasks.task import Task
from deploy.visualize import render
from distill.page.predictions import Predictor, chosen_images, samples_of, task_of_run
from distill.page.records import RunRecord
from distill.reporting.panels import side_by_side

EACH = 3
"""Images of each kind: worst, median, best."""
LONGEST = 512
"""Longest side of an embedded image, in pixels; larger ones are reduced."""
UNKNOWN = 255


@dataclass(frozen=True)
class ShownImage:
    """One test image with its truth and predictions."""

    name: str
    kind: str
    """"worst", "median" or "best"."""
    score: str
    """Of the last network, with its unit."""
    row: str
    """All panels side by side, as a data URI."""
    caption: str
    """What the panels of `row` are, from left to right."""
    image: str
    """The image alone, as a data URI."""
    width: int
    """Of the layers, in pixels."""
    layers: dict[str, str]
    """Class ids by name, "label" first, as data URIs of gray PNG; empty if labels are not classes."""


def shown_images(run: RunRecord, predictors: Sequence[Predictor], each: int = EACH) -> list[ShownImage]:
    """The best, median and worst test images by the score of the last network."""
    last = predictors[-1].found
    wanted = {position: kind for kind, position in chosen_images(last, each)}
    samples = {index: sample for index, sample in enumerate(counted(samples_of(run))) if index in wanted}
    task = task_of_run(run)
    images = []
    for position, kind in wanted.items():
        score = last.images[position].score
        assert score is not None
        text = f"{task.metric.name} {task.metric.text(score)} {task.metric.unit}"
        images.append(_shown(samples[position], kind, text, task, predictors))
    return images


def _shown(sample: Sample, kind: str, score: str, task: Task, predictors: Sequence[Predictor]) -> ShownImage:
    name, image, truth, valid = sample
    classes = predictors[-1].model.classes
    results: dict[str, Any] = {one.name: one.model(image) for one in predictors}
    layers = {}
    if task.confusion is None:
        row = side_by_side(task.panels(image, truth, list(results.values()), classes))
        caption = ", ".join(["image and truth", *results])
    else:
        ids = {"label": np.where(valid, truth, UNKNOWN)} | {one: got.labels for one, got in results.items()}
        layers = {
            one: _png(_reduced(Image.fromarray(labels.astype(np.uint8)))) for one, labels in ids.items()
        }
        row, caption = _error_row(sample, results, classes)
    return ShownImage(
        Path(name).name,
        kind,
        score,
        _row(row),
        caption,
        _photo(render(image)),
        min(LONGEST, image.shape[1]),
        layers,
    )


def _error_row(
    sample: Sample, results: dict[str, Any], classes: Sequence[ClassInfo]
) -> tuple[np.ndarray, str]:
    _, image, truth, valid = sample
    predictions = [(name, one.labels) for name, one in results.items()]
    binary = 1 if len(classes) == 2 else None
    row = error_picture(image, truth, valid, predictions, classes, binary)
    return row, ", ".join(["image", "label", *(f"{name}, its errors" for name in results)])


def _reduced(picture: Image.Image, resample: Image.Resampling = Image.Resampling.NEAREST) -> Image.Image:
    scale = min(1.0, LONGEST / max(picture.size))
    if scale == 1.0:
        return picture
    return picture.resize((round(scale * picture.width), round(scale * picture.height)), resample)


def _row(pixels: np.ndarray) -> str:
    """A row of panels; only its height is limited."""
    picture = Image.fromarray(pixels)
    if picture.height > LONGEST:
        size = round(picture.width * LONGEST / picture.height), LONGEST
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    return _uri(picture, "webp", quality=85)


def _photo(pixels: np.ndarray) -> str:
    return _uri(_reduced(Image.fromarray(pixels), Image.Resampling.BILINEAR), "webp", quality=90)


def _png(ids: Image.Image) -> str:
    """Class ids as gray PNG: a browser decodes them exactly."""
    return _uri(ids, "png", optimize=True)


def _uri(picture: Image.Image, kind: str, **options: Any) -> str:
    file = BytesIO()
    picture.save(file, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
