"""Where the pixels of a raster come from and where the result goes: two protocols, and both of them for arrays."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from deploy.errors import UserError
from deploy.raster.grid import Grid, Piece

NODATA = 255
"""Label of pixels without data, whatever the bundle's own ignore label is."""
PROBABILITY_STEPS = 254
"""uint8 probabilities are multiples of 1/254; 255 is no data."""


class Source(Protocol):
    """A raster that is read by windows, by one thread at a time."""

    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def bands(self) -> int: ...
    @property
    def dtype(self) -> np.dtype:
        """Of the stored numbers."""
        ...

    def read_window(self, row: int, col: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """The pixels H×W×C, uint8 or float32, and bool H×W: those that carry data.

        The window lies inside the raster. uint8 has no NaN, hence the mask; pixels that are not finite need not be in
        it. Raises `UserError` naming the place when it cannot be read.
        """
        ...


class Sink(Protocol):
    """Takes finished pieces, in their order."""

    def start(self, grid: Grid, classes: int, probabilities: str | None) -> int:
        """Get ready, and say how many pieces are there already: those are not computed again."""
        ...

    def write(self, piece: Piece, labels: np.ndarray, probabilities: np.ndarray | None) -> None:
        """Keep labels uint8 H×W (`NODATA` where there is none) and probabilities K×H×W, float32 or uint8.

        When it returns, the piece survives a crash, if the sink is one that can.
        """
        ...


@dataclass(frozen=True, eq=False)
class ArraySource:
    """An array H×W or H×W×C of real numbers; an `np.memmap` is read as it is needed.

    `nodata` is the stored number of pixels without data; where the numbers are floats, NaN and infinities are so too.
    A uint8 pixel has no data when all its channels are `nodata`, as 0 is a color, too; others when any channel is.
    """

    array: np.ndarray
    nodata: float | None = None

    def __post_init__(self) -> None:
        if self.array.ndim not in (2, 3) or self.array.size == 0 or self.array.dtype.kind not in "fiu":
            raise UserError(
                f"a raster is H×W or H×W×C of real numbers, not {self.array.dtype} of shape {self.array.shape}"
            )

    @property
    def height(self) -> int:
        """Rows."""
        return self.array.shape[0]

    @property
    def width(self) -> int:
        """Columns."""
        return self.array.shape[1]

    @property
    def bands(self) -> int:
        """Channels."""
        return self.array.shape[2] if self.array.ndim == 3 else 1

    @property
    def dtype(self) -> np.dtype:
        """Of the array."""
        return self.array.dtype

    def read_window(self, row: int, col: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Source.read_window`."""
        pixels = np.asarray(self.array[row : row + height, col : col + width])
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        valid = np.ones(pixels.shape[:2], bool)
        if self.nodata is not None and not np.isnan(self.nodata):
            known = pixels != self.nodata
            valid = known.any(axis=2) if pixels.dtype == np.uint8 else known.all(axis=2)
        return (pixels if pixels.dtype == np.uint8 else pixels.astype(np.float32)), valid


@dataclass(eq=False)
class ArraySink:
    """Keeps the whole result in memory."""

    labels: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.uint8))
    """uint8 H×W."""
    probabilities: np.ndarray | None = None
    """float32 or uint8 K×H×W, where they were asked for."""

    def start(self, grid: Grid, classes: int, probabilities: str | None) -> int:
        """See `Sink.start`: always from the beginning."""
        self.labels = np.full((grid.height, grid.width), NODATA, np.uint8)
        if probabilities is not None:
            self.probabilities = np.zeros((classes, grid.height, grid.width), probabilities)
        return 0

    def write(self, piece: Piece, labels: np.ndarray, probabilities: np.ndarray | None) -> None:
        """See `Sink.write`."""
        rows, columns = slice(piece.top, piece.bottom), slice(piece.block.begin, piece.block.end)
        self.labels[rows, columns] = labels
        if self.probabilities is not None and probabilities is not None:
            self.probabilities[:, rows, columns] = probabilities
