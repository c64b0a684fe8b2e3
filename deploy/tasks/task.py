"""What a network is for: how its results are made and scored, and how their truth is kept in files.

A network of either task gives `labels` (class ids, compared hop by hop) and `logits`. In segmentation labels are what
is wanted; in grasp detection they say where a grasp is good, and `logits` are the maps that grasps are decoded from.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from deploy.backends.engine import Engine
from deploy.bundle.manifest import ClassInfo, InputSpec, Manifest
from deploy.evaluation.metric import Metric
from deploy.evaluation.receipt import Sample, Scorer
from deploy.inference.call import Timings


class Result(Protocol):
    """What every model returns for an image H×W, or for N images; each task adds its own."""

    @property
    def labels(self) -> np.ndarray:
        """Label ids uint8 H×W or N×H×W; the ignore label where there is no data."""
        ...

    @property
    def valid(self) -> np.ndarray:
        """bool, shaped as `labels`: pixels that carry data."""
        ...

    @property
    def timings(self) -> Timings:
        """Milliseconds of the call, by stage."""
        ...


class Model(Protocol):
    """A loaded network: call it with an image. Safe to call from several threads at once."""

    @property
    def input(self) -> InputSpec:
        """What an image must be."""
        ...

    @property
    def classes(self) -> Sequence[ClassInfo]:
        """The meaning of the label ids."""
        ...

    @property
    def engine(self) -> Engine:
        """What runs the network."""
        ...

    def __call__(self, image: np.ndarray | Sequence[np.ndarray]) -> Any:
        """Predict an image H×W×C, or a batch N×H×W×C; returns the `Result` of the model's task."""
        ...


@dataclass(frozen=True)
class Task:
    """One task; `task_of` finds that of a bundle."""

    name: str
    metric: Metric
    model: Callable[[InputSpec, Sequence[ClassInfo], Engine, int], Model]
    """From input, classes, engine and ignore label to a callable from an image to a result: `deploy.tasks.segmentation.model.SegmentationModel`,
    `deploy.tasks.grasp.model.GraspModel`."""
    scorer: Callable[[Sequence[str]], Scorer]
    """A fresh scorer for classes of these names."""
    truth: str
    """Folder of the truth, beside `images`, in labeled data (`deploy.evaluation.labeled_data`)."""
    read: Callable[[Path, Manifest], Iterator[Sample]]
    """The samples of a folder of labeled data, checked."""
    write: Callable[[Path, Iterable[Sample]], int]
    """Write samples as such a folder; their number."""
    panels: Callable[[np.ndarray, np.ndarray, Sequence[Any], Sequence[ClassInfo]], list[np.ndarray]]
    """An image, its truth and the results of several models, as pictures of one height."""
    words: Callable[[Any, Sequence[ClassInfo]], str]
    """A result in a few words."""
    save: Callable[[Path, np.ndarray, Any, Sequence[ClassInfo], bool], None]
    """Write a result as files whose names begin as the path does, with maps of probability where asked for."""
    decide: Callable[[Any, float | None, float | None], Model] | None = None
    """A model with this threshold and temperature; None where labels are not the classes of the highest scores."""
