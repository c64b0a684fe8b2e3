"""Chunks of a raster that are predicted independently of each other, in other processes or on other machines.

A chunk is some successive pieces of a block. Its first pieces also need the rows of tiles above them, which the chunk
before it runs, too: that is the price of independence, one row of tiles for each chunk. The labels of all chunks
together are those of `deploy.raster.predict.predict_raster`, bit by bit.
"""

from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from deploy.raster.grid import Grid
from deploy.raster.predict import Options, Summary, finished
from deploy.raster.sources import ArraySource, Source
from deploy.tasks.segmentation.geotiff import NODATA
from deploy.tasks.segmentation.model import SegmentationModel


class Chunk(NamedTuple):
    """Pieces [first, stop) of one block."""

    first: int
    stop: int


class Region(NamedTuple):
    """Rows [top, bottom) and columns [left, right) of a raster."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left


@dataclass(frozen=True, eq=False)
class PlacedSource:
    """The pixels of a region of a raster, which are all that a chunk reads, as the raster."""

    pixels: ArraySource
    region: Region
    grid: Grid
    """Tells the size of the raster."""

    @property
    def height(self) -> int:
        """Rows of the raster."""
        return self.grid.height

    @property
    def width(self) -> int:
        """Columns of the raster."""
        return self.grid.width

    @property
    def bands(self) -> int:
        """Channels."""
        return self.pixels.bands

    @property
    def dtype(self) -> np.dtype:
        """dtype of the array."""
        return self.pixels.dtype

    def read_window(self, row: int, col: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """See `deploy.raster.sources.Source.read_window`; the window lies in the region."""
        return self.pixels.read_window(row - self.region.top, col - self.region.left, height, width)


def chunks_of(grid: Grid, rows: int) -> tuple[Chunk, ...]:
    """Cut a raster into chunks of about the same number of rows of tiles, at most `rows`, in the order of pieces."""
    count = -(-len(grid.rows) // rows)
    edges = [round(i * len(grid.rows) / count) for i in range(count + 1)]
    starts = range(0, grid.count, len(grid.rows))
    return tuple(Chunk(start + edges[i], start + edges[i + 1]) for start in starts for i in range(count))


def region(grid: Grid, chunk: Chunk) -> Region:
    """Where the result of a chunk lies."""
    first, last = grid.piece(chunk.first), grid.piece(chunk.stop - 1)
    return Region(first.top, last.bottom, first.block.begin, first.block.end)


def region_read(grid: Grid, chunk: Chunk) -> Region:
    """The pixels that a chunk reads: those of all tiles that touch it, as far as they lie in the raster."""
    first, last = grid.piece(chunk.first), grid.piece(chunk.stop - 1)
    top = grid.rows[grid.first_row_of(first.top)]
    tiles = first.block.tiles
    return Region(
        top,
        min(last.top + grid.window[0], grid.height),
        tiles[0],
        min(tiles[-1] + grid.window[1], grid.width),
    )


def predict_chunk(
    model: SegmentationModel,
    source: Source,
    grid: Grid,
    chunk: Chunk,
    options: Options,
    summary: Summary | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Predict a chunk, in the caller's thread: Dask runs as many chunks at a time as there are cores.

    Args:
        model: a segmentation model.
        source: the raster; only the pixels of `region_read` are read.
        grid: its tiles, as `deploy.raster.predict.plan` lays them out.
        chunk: one of `chunks_of`.
        options: those of the plan.
        summary: counts the tiles that are run.

    Returns:
        Labels uint8 H×W of the `region` of the chunk, with `sources.NODATA`; and probabilities K×H×W, float32 or uint8,
        or None if the options do not ask for them.

    Raises:
        UserError: the source cannot be read.
    """
    where = region(grid, chunk)
    labels = np.full((where.height, where.width), NODATA, np.uint8)
    planes = (
        np.empty((len(model.classes), where.height, where.width), options.probabilities)
        if options.probabilities
        else None
    )
    with closing(finished(model, source, grid, options, range(*chunk), summary, concurrent=False)) as pieces:
        for end, found, probabilities in pieces:
            rows = slice(end.piece.top - where.top, end.piece.bottom - where.top)
            labels[rows] = found
            if planes is not None:
                planes[:, rows] = probabilities
    return labels, planes
