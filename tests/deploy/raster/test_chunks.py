"""Chunks of a raster, predicted independently: together they are what one run predicts, bit by bit."""

import numpy as np
import pytest

from deploy.raster import ArraySource, Options
from deploy.raster.chunks import chunks_of, predict_chunk, region, region_read
from deploy.raster.predict import Summary, plan
from tests.deploy.raster.networks import conv_model, predict, sar

IMAGE = sar(300, 1100)
IMAGE[60:130, 200:800] = np.nan


class Watched(ArraySource):
    """Remembers which pixels were read."""

    def read_window(self, row, col, height, width):
        windows.append((row, row + height, col, col + width))
        return super().read_window(row, col, height, width)


windows = []


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        (Options(), 1),
        (Options(overlap=40), 3),
        (Options(memory=1, batch=3, probabilities="uint8"), 2),
        (Options(overlap=0, min_valid=0.5, probabilities="float32"), 100),
    ],
)
def test_chunks_together_are_the_raster(options, rows):
    model, source = conv_model(), Watched(IMAGE)
    grid = plan(model, source, options)
    labels = np.full(IMAGE.shape[:2], 7, np.uint8)
    planes = np.full((3, *IMAGE.shape[:2]), 7, options.probabilities or np.uint8)
    for chunk in reversed(chunks_of(grid, rows)):
        windows.clear()
        found, probabilities = predict_chunk(model, source, grid, chunk, options)
        where, read = region(grid, chunk), region_read(grid, chunk)
        assert (labels[where.top : where.bottom, where.left : where.right] == 7).all()
        labels[where.top : where.bottom, where.left : where.right] = found
        if probabilities is not None:
            planes[:, where.top : where.bottom, where.left : where.right] = probabilities
        tops, bottoms, lefts, rights = zip(*windows, strict=True)
        assert (min(tops), max(bottoms), min(lefts), max(rights)) == read
    wanted = predict(IMAGE, options)
    np.testing.assert_array_equal(labels, wanted.labels)
    if options.probabilities:
        np.testing.assert_array_equal(planes, wanted.probabilities)


def test_chunks_are_about_equal_and_cost_a_row_of_tiles_each():
    model, source, options = conv_model(), ArraySource(sar(700, 100)), Options()
    grid = plan(model, source, options)
    chunks = chunks_of(grid, 6)
    assert [chunk.stop - chunk.first for chunk in chunks] == [5, 5, 5]
    assert [chunk.first for chunk in chunks] == [0, 5, 10]
    summary = Summary()
    predict_chunk(model, source, grid, chunks[1], options, summary)
    assert summary.run == (5 + 1) * len(grid.blocks[0].tiles)


def test_a_chunk_takes_no_thread_but_the_callers(monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("Dask gives each task one thread")

    monkeypatch.setattr("threading.Thread.start", refuse)
    model, source, options = conv_model(), ArraySource(sar(700, 100)), Options()
    grid = plan(model, source, options)
    labels, _ = predict_chunk(model, source, grid, chunks_of(grid, 6)[0], options)
    assert labels.shape[1] == 100
