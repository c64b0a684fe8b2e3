"""What a network is for: how its results are made and scored, and how their truth is kept in files.

A network of either task gives `labels` (class ids, compared hop by hop) and `logits`. In segmentation labels are what
is wanted; in grasp detection they say where a grasp is good, and `logits` are the maps that grasps are decoded from.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
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
    panels: Callable[[np.ndarray, np.ndarray, Sequence[Any], Sequence[ClassInfo]], list[np.ndarray]]
    """An image, its truth and the results of several models, as pictures of one height."""
    words: Callable[[Any, Sequence[ClassInfo]], str]
    """A result in a few words."""
    save: Callable[[Path, np.ndarray, Any, Sequence[ClassInfo], bool], None]
    """Write a result as files whose names begin as the path does, with maps of probability where asked for."""


def task_of(manifest: Manifest) -> Task:
    """The task of a bundle."""
    return task_named(manifest.task)


def model_of(manifest: Manifest, engine: Engine) -> Any:
    """The model of a bundle on an engine."""
    model = task_of(manifest).model(manifest.input, manifest.classes, engine, manifest.ignore_label)
    if (manifest.threshold, manifest.temperature) == (None, None):
        return model
    return replace(model, threshold=manifest.threshold, temperature=manifest.temperature)


def task_named(name: str) -> Task:
    """The task called "segmentation" or "grasp". Only what belongs to it is imported."""
    if name == "grasp":
        from deploy.grasp.task import GRASP

        return GRASP
    from deploy.segmentation import SEGMENTATION

    return SEGMENTATION
