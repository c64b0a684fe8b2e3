"""Predict arrays H×W×C at once, or lazily in chunks that Dask computes; the labels are the same, bit by bit."""

from typing import Any, NamedTuple

import numpy as np

from deploy.pinned import Pin, open_pinned
from deploy.raster.chunks import Chunk, PlacedSource, chunks_of, predict_chunk, region, region_read
from deploy.raster.grid import Grid, make_grid
from deploy.raster.predict import Options, predict_raster
from deploy.raster.sources import ArraySink, ArraySource
from deploy.tasks.segmentation.model import SegmentationModel


class Task(NamedTuple):
    """What all chunks share."""

    pinned: Pin
    options: Options
    nodata: float | None
    """Value of pixels without data."""
    tile: tuple[int, int]
    """Height and width of the network's input."""
    classes: int


def predict_now(task: Task, pixels: np.ndarray) -> np.ndarray:
    """Labels H×W or, if the options ask for them, probabilities K×H×W of an array H×W×C in memory."""
    sink = ArraySink()
    predict_raster(_model(task), ArraySource(np.asarray(pixels), task.nodata), sink, task.options)
    return sink.labels if sink.probabilities is None else sink.probabilities


def predict_lazily(task: Task, side: int, pixels: Any) -> Any:
    """As `predict_now`, of an array of Dask: an array of Dask in chunks of about `side` pixels."""
    from dask import array  # optional dependency
    from dask.delayed import delayed

    height, width = pixels.shape[:2]
    grid = make_grid(height, width, task.tile, task.options.overlap, side)
    predict = delayed(_predict_chunk, pure=False)
    leading = () if task.options.probabilities is None else (task.classes,)

    def lazy(chunk: Chunk) -> Any:
        read, where = region_read(grid, chunk), region(grid, chunk)
        part = pixels[read.top : read.bottom, read.left : read.right]
        shape = (*leading, where.height, where.width)
        return array.from_delayed(
            predict(task, grid, part, chunk), shape, task.options.probabilities or np.uint8
        )

    chunks = chunks_of(grid, max(1, side // (grid.window[0] - grid.overlap[0])))
    rows = len(chunks) // len(grid.blocks)
    return array.block([[lazy(one) for one in chunks[row::rows]] for row in range(rows)])


def _predict_chunk(task: Task, grid: Grid, pixels: np.ndarray, chunk: Chunk) -> np.ndarray:
    """The result of a chunk; `pixels` are those of its `region_read`."""
    array = ArraySource(np.asarray(pixels), task.nodata)
    source = PlacedSource(array, region_read(grid, chunk), grid)
    labels, probabilities = predict_chunk(_model(task), source, grid, chunk, task.options)
    return labels if probabilities is None else probabilities


def _model(task: Task) -> SegmentationModel:
    model = open_pinned(task.pinned).model
    assert isinstance(model, SegmentationModel)
    return model
