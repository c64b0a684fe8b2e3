"""The tiles of a raster: their positions, their weights, and the pieces in which the result is finished.

Tiles form a grid of rows and columns. The raster is processed in *blocks* of columns, each from top to bottom, and a
block is finished in *pieces*: the rows above the next row of tiles. Sums are stored for one row of tiles of one block,
so memory does not depend on the size of the raster. Tiles on the border of two blocks are computed for both.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from deploy.errors import UserError

_LEAST = 1e-6
"""Weight at the outermost edge: almost 0, but enough for a pixel that no other tile covers."""


class Block(NamedTuple):
    """Columns [begin, end) of the raster, and the first columns of all tiles that touch them."""

    begin: int
    end: int
    tiles: tuple[int, ...]

    @property
    def width(self) -> int:
        """Columns."""
        return self.end - self.begin


@dataclass(frozen=True)
class Piece:
    """Rows [top, bottom) of a block, which are finished together."""

    index: int
    """Its position in the order of processing, over all blocks."""
    block: Block
    top: int
    bottom: int


@dataclass(frozen=True)
class Grid:
    """The tiles of a raster; `make_grid` lays it out."""

    height: int
    width: int
    """Of the raster, in pixels."""
    window: tuple[int, int]
    """Height and width of a tile."""
    overlap: tuple[int, int]
    """Rows and columns that neighboring tiles share (the last tile of each axis may share more)."""
    rows: tuple[int, ...]
    """First rows of the tiles."""
    blocks: tuple[Block, ...]

    @property
    def tiles(self) -> int:
        """Number of tiles; those computed for two blocks count twice."""
        return len(self.rows) * sum(len(block.tiles) for block in self.blocks)

    @property
    def count(self) -> int:
        """Number of pieces."""
        return len(self.rows) * len(self.blocks)

    def piece(self, index: int) -> Piece:
        """The piece of this index."""
        block, row = divmod(index, len(self.rows))
        bottom = self.rows[row + 1] if row + 1 < len(self.rows) else self.height
        return Piece(index, self.blocks[block], self.rows[row], bottom)

    def pieces(self) -> Iterator[Piece]:
        """All pieces, in the order in which they are finished."""
        return map(self.piece, range(self.count))

    def first_row_of(self, top: int) -> int:
        """Index of the first row of tiles that covers the raster's row `top`."""
        return next(i for i, row in enumerate(self.rows) if row + self.window[0] > top)

    def weight(self, row: int, column: int) -> np.ndarray:
        """Weights float32 h×w, in (0, 1], of the pixels of the tile at this position. Do not modify the array."""
        return _weight(
            self.window,
            self.overlap,
            (row > 0, row + self.window[0] < self.height),
            (column > 0, column + self.window[1] < self.width),
        )


def make_grid(
    height: int, width: int, window: tuple[int, int], overlap: int | None, columns_at_most: int
) -> Grid:
    """Lay out the tiles of a raster.

    The last tile of an axis is shifted back to the border. A raster smaller than a tile has one tile, which extends
    beyond it.

    Args:
        height: of the raster.
        width: of the raster.
        window: height and width of a tile.
        overlap: pixels that neighboring tiles share; None: a quarter of the tile.
        columns_at_most: approximate limit of the columns of a block.

    Raises:
        UserError: the overlap is not in 0..side-1.
    """
    if overlap is not None and not 0 <= overlap < min(window):
        raise UserError(
            f"overlap is {overlap} pixels, tiles are {window[0]}×{window[1]}: give 0 to {min(window) - 1}"
        )
    shared = (overlap, overlap) if overlap is not None else (window[0] // 4, window[1] // 4)
    rows = _starts(height, window[0], shared[0])
    columns = _starts(width, window[1], shared[1])
    return Grid(height, width, window, shared, rows, _blocks(columns, width, window[1], columns_at_most))


def _starts(length: int, window: int, overlap: int) -> tuple[int, ...]:
    last = max(0, length - window)
    return (*range(0, last, window - overlap), last)


def _blocks(columns: tuple[int, ...], width: int, window: int, at_most: int) -> tuple[Block, ...]:
    """Blocks with about the same number of tiles, at most `at_most` columns wide if more than one tile fits."""
    edges = [*columns, width]
    step = columns[1] if len(columns) > 1 else width
    # The last tile is a whole window wide, which may be several steps.
    count = min(len(columns), -(-width // max(at_most, step)))
    cuts = [edges[round(i * len(columns) / count)] for i in range(count + 1)]
    return tuple(
        Block(begin, end, tuple(x for x in columns if x < end and x + window > begin))
        for begin, end in pairwise(cuts)
    )


@lru_cache(maxsize=32)
def _weight(
    window: tuple[int, int], overlap: tuple[int, int], rows: tuple[bool, bool], columns: tuple[bool, bool]
) -> np.ndarray:
    down, across = _taper(window[0], overlap[0], *rows), _taper(window[1], overlap[1], *columns)
    return np.outer(down, across).astype(np.float32)


def _taper(window: int, overlap: int, before: bool, after: bool) -> np.ndarray:
    """Weights float64 along one axis: 1, falling to almost 0 on sides with a neighbor.

    The slope is a half cosine over the middle half of the overlap. The outer quarter has almost no weight, because the
    network sees the least context there: if its receptive field reaches no further, the seam is invisible.
    """
    margin = overlap // 4
    length = overlap - 2 * margin
    rise = np.full(window, 1.0)
    rise[:margin] = 0
    rise[margin : margin + length] = (1 - np.cos(np.pi * (np.arange(length) + 0.5) / max(length, 1))) / 2
    rise = np.maximum(rise, _LEAST)
    ones = np.ones(window)
    return np.minimum(rise if before else ones, rise[::-1] if after else ones)
