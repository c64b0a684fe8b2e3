"""The protocols `Source` and `Sink` of a raster's pixels and its result, and their implementations for arrays."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from deploy.errors import UserError
from deploy.raster.grid import Grid, Piece
from deploy.tasks.segmentation.geotiff import NODATA


class Source(Protocol):
    """A raster that is read in windows, by one thread at a time."""

    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def bands(self) -> int: ...
    @property
    def dtype(self) -> np.dtype:
        """dtype of the stored values."""
        ...

    def read_window(self, row: int, col: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Read a window that lies inside the raster.

        Returns:
            The pixels H×W×C, uint8 or float32, and bool H×W: pixels with data. The mask may include pixels that are
            not finite, which are never data.

        Raises:
            UserError: the window cannot be read; the message names it.
        """
        ...


class Sink(Protocol):
    """Takes finished pieces in the order of their indices."""

    def start(self, grid: Grid, classes: int, probabilities: str | None) -> int:
        """Prepare for a raster, and return how many pieces are finished already; they are not computed again.

        Args:
            grid: the tiles of the raster.
            classes: number of classes, K.
            probabilities: dtype of the probabilities, or None.
        """
        ...

    def write(self, piece: Piece, labels: np.ndarray, probabilities: np.ndarray | None) -> None:
        """Store a piece. A sink on disk returns only when the piece would survive a crash.

        Args:
            piece: where the result lies in the raster.
            labels: uint8 H×W, with `NODATA`.
            probabilities: K×H×W, float32 or uint8; None if they were not requested.
        """
        ...


@dataclass(frozen=True, eq=False)
class ArraySource:
    """An array H×W or H×W×C of real numbers; an `np.memmap` is read on demand.

    `nodata` is the value of pixels without data; of floats, NaN and infinities are also no data. A uint8 pixel has no
    data if all its channels are `nodata`, because 0 is also a color; other pixels if any channel is.
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
        """dtype of the array."""
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
    """Stores the whole result in memory."""

    labels: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.uint8))
    """uint8 H×W."""
    probabilities: np.ndarray | None = None
    """float32 or uint8 K×H×W, if they were requested."""

    def start(self, grid: Grid, classes: int, probabilities: str | None) -> int:
        """See `Sink.start`. No piece is ever finished already."""
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
