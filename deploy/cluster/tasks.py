"""What runs on the workers: an image, a chunk of a raster, and the GeoTIFF of a raster from its chunks."""

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deploy.bundle.bundle_files import read_manifest
from deploy.cluster.fitness import Job, refusal
from deploy.cluster.outcome import Done, Outcome, warnings_of_task
from deploy.cluster.scenes import LABELS, PROBABILITIES, ChunkFiles, Scene, chunk_file
from deploy.cluster.work import publish, staging
from deploy.errors import UserError
from deploy.files.atomic import atomic_write
from deploy.inference.image_files import predict_file
from deploy.pinned import Opened, open_pinned
from deploy.raster.chunks import Chunk, predict_chunk
from deploy.tasks.registry import task_of
from deploy.tasks.segmentation.geotiff import probabilities_path, write_labels, write_probabilities
from deploy.tasks.segmentation.model import SegmentationModel
from deploy.tasks.task import Predicted


class Item(NamedTuple):
    """An image to predict."""

    path: str
    name: str
    """Beginning of the names of its results."""
    stamp: str
    """What identifies its content."""

    @property
    def input(self) -> str:
        """Name of its file."""
        return Path(self.path).name


class _CannotWrite(UserError):
    """What ends the whole run: no other input could be written either."""


def predict_image(job: Job, item: Item) -> Outcome:
    """Predict an image as `edgedistill predict` does."""
    return _outcome(job, partial(_image, job, item))


def predict_part(job: Job, scene: Scene, chunk: Chunk) -> Outcome:
    """Predict a chunk of a raster, and store it in the scene's folder."""
    return _outcome(job, partial(_part, job, scene, chunk))


def write_scene(job: Job, scene: Scene, parts: Sequence[Outcome]) -> Outcome:
    """Write the GeoTIFFs of a raster as `edgedistill predict-raster` does, from its chunks.

    Args:
        job: what all tasks share.
        scene: the raster.
        parts: the outcomes of those of its chunks that this run predicts.
    """
    for one in parts:
        if one.error is not None or one.refusal is not None:
            return one
    return _outcome(job, partial(_scene, job, scene))


def _outcome(job: Job, work: Callable[[Opened], Done | None]) -> Outcome:
    """Do something with the network, and say how it went."""
    why = _refusal(job)
    if why is not None:
        return Outcome(refusal=f"worker {socket.gethostname()} {why}")
    with warnings_of_task() as warnings:
        try:
            opened = open_pinned(job.pin)
        except UserError as error:
            return Outcome(refusal=f"worker {socket.gethostname()}: {error}")
        try:
            return Outcome(work(opened), numbers=opened.numbers, warnings=tuple(warnings))
        except _CannotWrite as error:
            return Outcome(refusal=str(error))
        except UserError as error:
            return Outcome(error=str(error), warnings=tuple(warnings))


@lru_cache(maxsize=8)
def _refusal(job: Job) -> str | None:
    """A worker that came late has not been asked yet."""
    return refusal(job)


def _image(job: Job, item: Item, opened: Opened) -> Done:
    model = opened.model
    task = task_of(read_manifest(job.pin.bundle))
    path = Path(item.path)
    image, result = predict_file(model, path)
    with _publishing(job, Path(job.out)) as (folder, files):
        predicted = Predicted(folder / item.name, image, result, job.classes, job.look, path)
        for name in job.formats:
            task.formats[name](predicted)
    return Done(item.input, item.stamp, item.name, files)


def _part(job: Job, scene: Scene, chunk: Chunk, opened: Opened) -> None:
    assert isinstance(opened.model, SegmentationModel)
    with closing(scene.raster.open()) as source:
        labels, planes = predict_chunk(opened.model, source, scene.grid, chunk, scene.options)
    for kind, array in ((PROBABILITIES, planes), (LABELS, labels)):  # with its labels a chunk is finished
        if array is not None:
            with (
                _publishing(job, scene.folder) as (folder, _),
                atomic_write(chunk_file(folder, kind, chunk)) as file,
            ):
                np.save(file, array)


def _scene(job: Job, scene: Scene, opened: Opened) -> Done:
    classes = opened.model.classes
    with closing(scene.raster.open()) as source, _publishing(job, Path(job.out)) as (folder, files):
        out = folder / scene.name
        if scene.options.probabilities:
            write_probabilities(probabilities_path(out), ChunkFiles(scene, PROBABILITIES), source, classes)
        write_labels(out, ChunkFiles(scene, LABELS), source, classes)
    return Done(scene.input, scene.stamp, scene.name, files)


@contextmanager
def _publishing(job: Job, target: Path) -> Iterator[tuple[Path, dict[str, int]]]:
    """A folder for files that are moved to the target at the end of the block; and their names and bytes, then."""
    files: dict[str, int] = {}
    where = [job.work]
    try:
        with staging(Path(job.work), Path(job.out)) as folder:
            where.insert(0, str(folder))
            yield folder, files
            files |= publish(folder, target)
    except UserError as error:
        raise _CannotWrite(str(error).replace(where[0], job.out)) from error
