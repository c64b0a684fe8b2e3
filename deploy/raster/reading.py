"""Read a source into batches of tiles in the input format of the network. Every pixel of a block is read once."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from deploy.bundle.manifest import InputSpec
from deploy.inference.normalize import fill_of
from deploy.inference.preprocess import to_network
from deploy.raster.grid import Block, Grid, Piece
from deploy.raster.sources import Source


class Batch(NamedTuple):
    """Tiles of one row."""

    block: Block
    row: int
    """First row of the raster in these tiles."""
    columns: list[int]
    """First column of each tile."""
    inputs: np.ndarray
    """Pixels in the layout and dtype of the network."""


class RowEnd(NamedTuple):
    """Marks that all tiles of a row have been read."""

    piece: Piece
    """The piece that the row finishes."""
    valid: np.ndarray
    """bool rows×columns of the piece: pixels with data."""
    tiles: int
    """Tiles in the row, skipped ones included."""
    keep: bool
    """False: an earlier run finished the piece; the row is computed only for its contribution to later pieces."""


class Strip:
    """The pixels of one row of tiles of a block; it moves down the raster.

    Pixels without data have the mean of the bundle (NaN if it normalizes patches), and so have pixels outside the
    raster, if a tile is larger.
    """

    def __init__(self, source: Source, spec: InputSpec, grid: Grid, block: Block) -> None:
        self.source, self.grid = source, grid
        self.left = block.tiles[0]
        size = (grid.window[0], block.tiles[-1] + grid.window[1] - self.left)
        self.fill = fill_of(spec).astype(spec.dtype)
        self.pixels = np.empty((*size, len(spec.channels)), spec.dtype)
        self.pixels[:] = self.fill
        self.valid = np.zeros(size, bool)
        self.top = -1
        self.fresh = self.filled = 0
        """First row of the strip that is not read yet, and number of columns that are read in those rows."""

    def move(self, top: int) -> None:
        """Move the strip's first row down to the raster's row `top`; pixels that it still covers are not read again."""
        step = top - self.top if self.top >= 0 else len(self.valid)
        remaining = max(0, len(self.valid) - step)
        if remaining:
            self.pixels[:remaining] = self.pixels[step:].copy()  # source and target may overlap
            self.valid[:remaining] = self.valid[step:].copy()
        self.top, self.fresh, self.filled = top, remaining, 0

    def read_to(self, column: int) -> None:
        """Read the columns of the raster before `column` that are not read yet."""
        first, last = self.left + self.filled, min(column, self.grid.width)
        row, below = self.top + self.fresh, min(self.top + len(self.valid), self.grid.height)
        if first >= last or row >= below:
            return
        pixels, valid = self.source.read_window(row, first, below - row, last - first)
        if pixels.dtype.kind == "f":
            valid = valid & np.isfinite(pixels).all(axis=2)
        rows = slice(self.fresh, self.fresh + below - row)
        columns = slice(first - self.left, last - self.left)
        self.pixels[rows, columns] = pixels if valid.all() else np.where(valid[..., None], pixels, self.fill)
        self.valid[rows, columns] = valid
        self.filled = last - self.left

    def tile(self, column: int) -> tuple[np.ndarray, float]:
        """The tile h×w×C at a column of the raster, and the share of its pixels inside the raster that have data."""
        columns = slice(column - self.left, column - self.left + self.grid.window[1])
        height = min(len(self.valid), self.grid.height - self.top)
        width = min(self.grid.window[1], self.grid.width - column)
        share = np.count_nonzero(self.valid[:, columns]) / (height * width)
        return self.pixels[:, columns], share


@dataclass(frozen=True)
class Reading:
    """Reads the tiles of a grid from a source."""

    source: Source
    spec: InputSpec
    grid: Grid
    batch: int
    min_valid: float

    def batches(self, first: int, stop: int | None = None) -> Generator[Batch | RowEnd, None, None]:
        """Read all tiles that are needed for the pieces from index `first` on, before index `stop`; None: to the end.

        A batch never mixes tiles of two rows, so resumed and divided runs compute the same batches.
        """
        count = len(self.grid.rows)
        pieces = list(self.grid.pieces())[:stop]
        for start in range(first // count * count, len(pieces), count):
            begin = max(first, start)
            row = self.grid.first_row_of(pieces[begin].top)
            yield from self._block(pieces[start + row : start + count], begin)

    def _block(self, pieces: list[Piece], first: int) -> Generator[Batch | RowEnd, None, None]:
        """Read the last pieces of a block; those before index `first`, which an earlier run finished, are marked."""
        block = pieces[0].block
        strip = Strip(self.source, self.spec, self.grid, block)
        for piece in pieces:
            strip.move(piece.top)
            yield from self._row(strip, block)
            begin = block.begin - strip.left
            valid = strip.valid[: piece.bottom - piece.top, begin : begin + block.width].copy()
            yield RowEnd(piece, valid, len(block.tiles), piece.index >= first)

    def _row(self, strip: Strip, block: Block) -> Generator[Batch, None, None]:
        columns: list[int] = []
        tiles: list[np.ndarray] = []
        for number, column in enumerate(block.tiles):
            if number % self.batch == 0:
                ahead = block.tiles[min(number + self.batch, len(block.tiles)) - 1]
                strip.read_to(ahead + self.grid.window[1])
            tile, share = strip.tile(column)
            if share == 0 or share < self.min_valid:
                continue
            columns.append(column)
            tiles.append(tile)
            if len(tiles) == self.batch:
                yield Batch(block, strip.top, columns, to_network(np.stack(tiles), self.spec))
                columns, tiles = [], []
        if tiles:
            yield Batch(block, strip.top, columns, to_network(np.stack(tiles), self.spec))
