"""Predict a raster of any size, with memory that does not depend on its size."""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from time import perf_counter
from typing import Literal, NamedTuple

import numpy as np

from deploy.bundle.manifest import InputSpec, Manifest
from deploy.errors import UserError
from deploy.raster.ahead import ahead
from deploy.raster.blending import Blended, Scored, blend, labels_of, likelihoods
from deploy.raster.grid import Grid, make_grid
from deploy.raster.reading import Batch, Reading, RowEnd
from deploy.raster.sources import Sink, Source
from deploy.tasks.segmentation.model import SegmentationModel

_READ_AHEAD, _SCORED_AHEAD = 3, 3
"""Batches that may wait before the engine and after it."""

Report = Callable[[int, int], None]
"""Called with the number of finished tiles and of all tiles."""


@dataclass(frozen=True)
class Options:
    """How to process a raster. Every option affects the result, some only in its last digits."""

    overlap: int | None = None
    """Pixels that neighboring tiles share, 0..side-1; None: a quarter of the tile."""
    batch: int = 1
    """Tiles per call of the engine, at least 1."""
    min_valid: float = 0.0
    """Tiles with a smaller share of valid pixels, in 0..1, are not run; tiles without any never are."""
    probabilities: Literal["float32", "uint8"] | None = None
    """dtype of the probabilities of all classes; None: do not compute them."""
    memory: int = 128
    """Approximate MB for pixels and sums; if a row of tiles needs more, the raster is split into blocks of columns."""

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise UserError(f"batch is {self.batch}: give at least 1")
        if not 0 <= self.min_valid <= 1:
            raise UserError(f"min-valid is {self.min_valid}: give a share in 0..1, such as 0.1")
        if self.memory < 1:
            raise UserError(f"memory is {self.memory} MB: give at least 1")


@dataclass
class Summary:
    """Statistics of a run, without those of an earlier run that it resumed."""

    tiles: int = 0
    """All tiles of the raster."""
    run: int = 0
    """Tiles that the engine ran; the others have no data, or an earlier run finished them."""
    seconds: float = 0.0
    engine_seconds: float = 0.0
    """Time of these spent in the engine."""


class Finished(NamedTuple):
    """A piece of the result."""

    end: RowEnd
    """Where it lies, and what it took."""
    labels: np.ndarray
    """uint8 H×W, with `sources.NODATA`."""
    probabilities: np.ndarray | None
    """K×H×W, float32 or uint8, if they were requested."""


def predict_raster(
    model: SegmentationModel,
    source: Source,
    sink: Sink,
    options: Options | None = None,
    report: Report | None = None,
) -> Summary:
    """Predict a whole raster, tile by tile.

    Scores are blended where tiles overlap (see `deploy.raster.grid`). Pixels without data get the label 255
    (`sources.NODATA`), even if the bundle was trained without such pixels: the network sees the channel means there.
    Reading, engine and blending each run in their own thread.

    Args:
        model: a segmentation bundle, as `deploy.load` opens it.
        source: the raster.
        sink: takes the result.
        options: how to process the raster.
        report: called with the progress.

    Raises:
        UserError: the raster does not fit the bundle, the options are invalid, or `source` or `sink` fails.
    """
    options, start = options or Options(), perf_counter()
    if not isinstance(model, SegmentationModel):
        raise UserError("only segmentation bundles predict rasters; this one has another task")
    check_fit(model.input, source)
    grid = plan(model, source, options)
    first = sink.start(grid, len(model.classes), options.probabilities)
    summary = Summary(grid.tiles)
    done = _tiles_before(grid, first)
    if report is not None:
        report(done, grid.tiles)
    with closing(finished(model, source, grid, options, range(first, grid.count), summary)) as pieces:
        for end, labels, probabilities in pieces:
            sink.write(end.piece, labels, probabilities)
            done += end.tiles
            if report is not None:
                report(done, grid.tiles)
    summary.seconds = perf_counter() - start
    return summary


def check_fit(spec: InputSpec, source: Source) -> None:
    """Check that the network can read the raster.

    Raises:
        UserError: it cannot.
    """
    wanted = ", ".join(spec.channels)
    if spec.depth is not None:
        raise UserError("the bundle reads whole depth images; rasters are for maps such as aerial images")
    if spec.normalize == "image":
        raise UserError(
            "the bundle normalizes by the statistics of a whole image, but a raster is read tile by tile; train with "
            "--data.normalize patch (or set) for rasters"
        )
    if source.bands != len(spec.channels):
        few = source.bands < len(spec.channels)
        remedy = "take another raster or bundle" if few else "choose them, in this order, with --bands 1,2,…"
        raise UserError(
            f"the raster has {source.bands} band(s), the bundle wants {len(spec.channels)} ({wanted}); {remedy}"
        )
    if spec.dtype == "uint8" and source.dtype != "uint8":
        raise UserError(
            f"the raster is {source.dtype}, the bundle wants uint8 with values 0..255; convert it as the training "
            "images were, for example with gdal_translate -ot Byte -scale"
        )
    if source.dtype.kind not in "fiu":
        raise UserError(f"the raster is {source.dtype}, the bundle wants real numbers; convert it first")


def plan(model: SegmentationModel | Manifest, source: Source, options: Options) -> Grid:
    """Lay out the grid of tiles for a model, or for that of a manifest.

    Raises:
        UserError: the overlap does not fit the tile.
    """
    spec = model.input
    pixel = len(spec.channels) * (1 if spec.dtype == "uint8" else 4) + 1
    copies = 4 if options.probabilities else 1  # of the sums: the softmax allocates three
    column = spec.height * (4 * copies * len(model.classes) + 4 + pixel)
    window = (spec.height, spec.width)
    return make_grid(source.height, source.width, window, options.overlap, 10**6 * options.memory // column)


def finished(
    model: SegmentationModel,
    source: Source,
    grid: Grid,
    options: Options,
    pieces: range,
    summary: Summary | None = None,
    concurrent: bool = True,
) -> Generator[Finished, None, None]:
    """Predict pieces of a raster; close the generator when done.

    A piece has the same labels whichever pieces are predicted with it: the same tiles are run, in the same batches, and
    their scores are added in the same order.

    Args:
        model: a segmentation model.
        source: the raster.
        grid: its tiles, as `plan` lays them out.
        options: how to process the raster.
        pieces: indices of the pieces.
        summary: counts the tiles that are run.
        concurrent: read, run and blend in threads of their own; False: all in the caller's.
    """
    with closing(blended(model, source, grid, options, pieces, summary, concurrent)) as rows:
        for end, piece in rows:
            if piece is None:
                continue
            probabilities = likelihoods(piece, options.probabilities) if options.probabilities else None
            yield Finished(end, labels_of(piece, model.threshold), probabilities)


def blended(
    model: SegmentationModel,
    source: Source,
    grid: Grid,
    options: Options,
    pieces: range,
    summary: Summary | None = None,
    concurrent: bool = True,
) -> Generator[tuple[RowEnd, Blended | None], None, None]:
    """Predict and blend pieces; close the generator when done.

    Yields:
        The end of each row of tiles, and the piece that it finishes; see `deploy.raster.blending.blend`.
    """
    reading = Reading(source, model.input, grid, options.batch, options.min_valid)
    read = reading.batches(pieces.start, pieces.stop)
    if concurrent:
        read = ahead(read, _READ_AHEAD)
    scored = _scores(model, read, summary or Summary())
    if concurrent:
        scored = ahead(scored, _SCORED_AHEAD)
    with closing(scored):
        yield from blend(scored, grid, len(model.classes))


def _scores(
    model: SegmentationModel, items: Generator[Batch | RowEnd, None, None], summary: Summary
) -> Generator[Scored | RowEnd, None, None]:
    with closing(items):
        for item in items:
            if isinstance(item, RowEnd):
                yield item
                continue
            start = perf_counter()
            logits = model.calibrated(model.engine.run(item.inputs)["logits"])
            summary.engine_seconds += perf_counter() - start
            summary.run += len(item.columns)
            yield Scored(item, logits)


def _tiles_before(grid: Grid, first: int) -> int:
    return sum(len(piece.block.tiles) for piece in grid.pieces() if piece.index < first)
