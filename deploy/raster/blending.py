"""Blend the scores of tiles into finished pieces: weighted sums, stored for one row of tiles of one block."""

from collections.abc import Generator, Iterable
from typing import NamedTuple

import numpy as np

from deploy.raster.grid import Grid
from deploy.raster.reading import Batch, RowEnd
from deploy.scores.labels import decide
from deploy.scores.upsampling import softmax, upsample
from deploy.tasks.segmentation.geotiff import NODATA, PROBABILITY_STEPS


class Scored(NamedTuple):
    """The logits of a batch of tiles."""

    batch: Batch
    logits: np.ndarray
    """float32 N×K×h'×w'; h'×w' may be smaller than the tile, by the stride of the network."""


class Blended(NamedTuple):
    """A finished piece with the weighted sums of its scores."""

    end: RowEnd
    total: np.ndarray
    """float32 K×rows×columns: the sum of weight · logit. A view that is valid until the next piece is requested."""
    weight: np.ndarray
    """float32 rows×columns: the sum of weights; 0 where no tile was run."""

    @property
    def logits(self) -> np.ndarray:
        """float32 K×rows×columns: the blended scores; 0 where no tile was run."""
        return self.total / np.where(self.weight > 0, self.weight, 1)


class Sums:
    """Weighted sums in a window as high as a tile and as wide as a block, which moves down the raster."""

    def __init__(self, grid: Grid, classes: int) -> None:
        self.grid = grid
        width = max(block.width for block in grid.blocks)
        self._total = np.zeros((classes, grid.window[0], width), np.float32)
        self._weight = np.zeros((grid.window[0], width), np.float32)
        self._scratch = np.empty(grid.window, np.float32)

    def add(self, scored: Scored) -> None:
        """Add the scores of tiles. The window must be at their row and in their block."""
        for column, logits in zip(scored.batch.columns, scored.logits, strict=True):
            self._add(scored.batch, column, upsample(logits, self.grid.window))

    def _add(self, batch: Batch, column: int, scores: np.ndarray) -> None:
        block = batch.block
        first, last = max(column, block.begin), min(column + self.grid.window[1], block.end)
        here, there = slice(first - column, last - column), slice(first - block.begin, last - block.begin)
        weight, scratch = self.grid.weight(batch.row, column)[:, here], self._scratch[:, here]
        for plane, total in zip(scores, self._total, strict=True):  # one at a time stays in the cache
            np.multiply(plane[:, here], weight, out=scratch)
            total[:, there] += scratch
        self._weight[:, there] += weight

    def finished(self, end: RowEnd) -> Blended:
        """The sums of the piece, which is at the top of the window."""
        rows, columns = end.piece.bottom - end.piece.top, end.piece.block.width
        return Blended(end, self._total[:, :rows, :columns], self._weight[:rows, :columns])

    def move(self, rows: int) -> None:
        """Move the window down by `rows`; a move by its whole height clears it for the next block."""
        remaining = len(self._weight) - rows
        for plane in (*self._total, self._weight):
            plane[:remaining] = plane[rows:].copy()  # source and target may overlap
            plane[remaining:] = 0


def blend(
    items: Iterable[Scored | RowEnd], grid: Grid, classes: int
) -> Generator[tuple[RowEnd, Blended | None], None, None]:
    """Blend scores.

    Args:
        items: scores of tiles, and the end of each row of tiles.
        grid: the tiles of the raster.
        classes: number of classes, K.

    Yields:
        The end of each row of tiles, and the piece that it finishes; None for a piece that an earlier run finished.
    """
    sums = Sums(grid, classes)
    for item in items:
        if isinstance(item, Scored):
            sums.add(item)
            continue
        yield item, sums.finished(item) if item.keep else None
        last = item.piece.bottom == grid.height
        sums.move(grid.window[0] if last else item.piece.bottom - item.piece.top)


def labels_of(blended: Blended, threshold: float | None) -> np.ndarray:
    """Labels uint8 rows×columns by `deploy.scores.labels.decide`, or `NODATA`."""
    # weights are positive, so the highest sum is the highest score
    labels = decide(blended.total if threshold is None else blended.logits, threshold)
    labels[~_known(blended)] = NODATA
    return labels


def likelihoods(blended: Blended, dtype: str) -> np.ndarray:
    """Class probabilities K×rows×columns: float32 with NaN for no data, or uint8 in units of 1/254 with `NODATA`."""
    result = softmax(blended.logits)
    if dtype == "uint8":
        result = np.rint(result * PROBABILITY_STEPS).astype(np.uint8)
    result[:, ~_known(blended)] = NODATA if dtype == "uint8" else np.nan
    return result


def _known(blended: Blended) -> np.ndarray:
    return blended.end.valid & (blended.weight > 0)
