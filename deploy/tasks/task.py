"""The task of a network: how its results are computed and scored, and how the truth is stored in files.

The networks of all tasks output `labels` (ids, compared between hops) and `logits`. In segmentation the labels are the
result. In grasp detection they say where a grasp is good, and grasps are decoded from the maps in `logits`. In
regression they are levels of the values in `logits`.
"""

from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from deploy.backends.engine import Engine
from deploy.bundle.manifest import ClassInfo, InputSpec, Manifest
from deploy.evaluation.metric import Metric
from deploy.evaluation.receipt import INT8_BUDGET, Budget, Sample, Scorer
from deploy.inference.call import Timings
from deploy.look import Look
from deploy.stream.stream import Draw, Streamed, WhenFull


class Result(Protocol):
    """What every model returns for an image H×W, or for N images; each task adds its own attributes."""

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
        """Channels, size and dtype of the images."""
        ...

    @property
    def classes(self) -> Sequence[ClassInfo]:
        """The meaning of the label ids."""
        ...

    @property
    def engine(self) -> Engine:
        """The engine that runs the network."""
        ...

    def __call__(self, image: np.ndarray | Sequence[np.ndarray] | str | Path) -> Any:
        """Predict an image H×W×C, an image file, or a batch N×H×W×C; returns the `Result` of the model's task."""
        ...

    def batch(self, images: Sequence[np.ndarray], size: int = 8) -> list[Any]:
        """Predict images of any sizes (`deploy.stream.calls.Calls.batch`)."""
        ...

    def stream(
        self, source: Any, *, queue: int = 2, when_full: WhenFull | None = None, draw: Draw = False
    ) -> Generator[Streamed[Any], None, None]:
        """Predict all images of a video, camera, folder or iterable (`deploy.stream.calls.Calls.stream`)."""
        ...

    def stream_async(
        self, source: Any, *, queue: int = 2, when_full: WhenFull | None = None, draw: Draw = False
    ) -> AsyncGenerator[Streamed[Any], None]:
        """`stream` for `async for`."""
        ...

    async def run_async(self, image: np.ndarray | Sequence[np.ndarray]) -> Any:
        """`model(image)` without blocking the event loop (`deploy.stream.calls.Calls.run_async`)."""
        ...


@dataclass(frozen=True)
class Predicted:
    """An image and its result, to be written."""

    base: Path
    """The folder of the files, and what their names begin with."""
    image: np.ndarray
    """H×W×C."""
    result: Any
    """The `Result` of the image."""
    classes: Sequence[ClassInfo]
    """With the colors to draw in."""
    look: Look = field(default_factory=Look)
    source: Path | None = None
    """The file that the image was read from."""

    def path(self, ending: str) -> Path:
        """The file whose name ends so."""
        return self.base.with_name(self.base.name + ending)


Format = Callable[[Predicted], Path]
"""Writes an image's result, atomically, as a file, and returns its path."""


@dataclass(frozen=True)
class Task:
    """One task; `deploy.tasks.registry.task_of` returns that of a bundle."""

    name: str
    metric: Metric
    model: Callable[[InputSpec, Sequence[ClassInfo], Engine, int], Model]
    """Creates a model from input, classes, engine and ignore label, such as
    `deploy.tasks.segmentation.model.SegmentationModel`."""
    scorer: Callable[[Sequence[str]], Scorer]
    """Creates a scorer for classes of these names."""
    truth: str
    """Folder of the truth, beside `images`, in labeled data (`deploy.evaluation.labeled_data`)."""
    read: Callable[[Path, Manifest], Iterator[Sample]]
    """Reads and checks the samples of a folder of labeled data."""
    write: Callable[[Path, Iterable[Sample]], int]
    """Writes samples as such a folder, and returns their number."""
    panels: Callable[[np.ndarray, np.ndarray, Sequence[Any], Sequence[ClassInfo]], list[np.ndarray]]
    """Draws an image, its truth and the results of several models as pictures of the same height."""
    words: Callable[[Any, Sequence[ClassInfo]], str]
    """Describes a result in a few words."""
    formats: Mapping[str, Format]
    """The files that a result can be written as, by name."""
    usual: tuple[str, ...]
    """Those that are written unless the user says otherwise."""
    raw: str
    """The one with the probabilities or maps."""
    maps: int | None = None
    """Number of maps in the logits; None: one for each class."""
    reads_depth: bool = False
    """Whether a channel of its images may be depth (`InputSpec.depth`)."""
    int8_budget: Budget = INT8_BUDGET
    """What INT8 may cost unless the user says otherwise."""
    decide: Callable[[Any, float | None, float | None], Model] | None = None
    """Returns a model with this threshold and temperature; None if labels are not the classes of the highest scores."""
    confusion: Callable[[Any], np.ndarray] | None = None
    """The confusion matrix of a scorer of the task, int64 K×(K+1) (see `deploy.evaluation.segmentation_metrics`); None
    if labels are not classes."""
