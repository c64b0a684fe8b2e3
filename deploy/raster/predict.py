"""Prediction of a raster of any size, in memory that depends on its size in no way."""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from time import perf_counter
from typing import Literal

from deploy.backends.engine import Engine
from deploy.bundle.manifest import InputSpec
from deploy.errors import UserError
from deploy.raster.ahead import ahead
from deploy.raster.blending import Blended, Scored, blend, decide, likelihoods
from deploy.raster.grid import Grid, make_grid
from deploy.raster.reading import Batch, Reading, RowEnd
from deploy.raster.sources import Sink, Source
from deploy.tasks.segmentation.model import SegmentationModel

_READ_AHEAD, _SCORED_AHEAD = 3, 3
"""Batches that wait before the engine and after it."""

Report = Callable[[int, int], None]
"""Called with the tiles that are done, and their number in all."""


@dataclass(frozen=True)
class Options:
    """How to go over a raster. Everything here has a say in the result, if only in its last digits."""

    overlap: int | None = None
    """Pixels that neighboring tiles share, 0..side-1; None: a quarter of the tile."""
    batch: int = 1
    """Tiles that go through the engine at a time, at least 1."""
    min_valid: float = 0.0
    """In 0..1: tiles of which a smaller share carries data are not run; those without any never are."""
    probabilities: Literal["float32", "uint8"] | None = None
    """Also give the probabilities of all classes."""
    memory: int = 128
    """MB for pixels and sums, about; where a row of tiles needs more, the raster is worked on in blocks of columns."""

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise UserError(f"batch is {self.batch}: give at least 1")
        if not 0 <= self.min_valid <= 1:
            raise UserError(f"min-valid is {self.min_valid}: give a share in 0..1, such as 0.1")
        if self.memory < 1:
            raise UserError(f"memory is {self.memory} MB: give at least 1")


@dataclass
class Summary:
    """What came of it, of this run alone where an earlier one was continued."""

    tiles: int = 0
    """All tiles of the raster."""
    run: int = 0
    """Those that went through the engine; the others had no data, or were done before."""
    seconds: float = 0.0
    engine_seconds: float = 0.0
    """Of these the time spent inside the engine."""


def predict_raster(
    model: SegmentationModel, source: Source, sink: Sink, options: Options | None = None, report: Report | None = None
) -> Summary:
    """Predict a whole raster, tile by tile, from `source` into `sink`.

    Scores are blended where tiles overlap (see `deploy.raster.grid`). Pixels without data get the label 255
    (`sources.NODATA`), whether or not the bundle knows such pixels: the network sees its mean there. Reading, engine
    and blending run in a thread each.
    Raises `UserError` for a raster that does not fit the bundle, bad options, and what source and sink raise.
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
    with closing(blended(model, source, grid, options, first, summary)) as rows:
        for end, piece in rows:
            if piece is None:
                continue
            probabilities = likelihoods(piece, options.probabilities) if options.probabilities else None
            sink.write(end.piece, decide(piece), probabilities)
            done += end.tiles
            if report is not None:
                report(done, grid.tiles)
    summary.seconds = perf_counter() - start
    return summary


def check_fit(spec: InputSpec, source: Source) -> None:
    """`UserError` where the network cannot read such a raster."""
    wanted = ", ".join(spec.channels)
    if spec.depth is not None:
        raise UserError(
            "the bundle reads depth images, each as a whole; rasters are for maps such as aerial images"
        )
    if spec.normalize == "image":
        raise UserError(
            "the bundle normalizes by the numbers of a whole image, and a raster is read tile by tile; train with "
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


def plan(model: SegmentationModel, source: Source, options: Options) -> Grid:
    """The grid of tiles. `UserError` for an overlap that does not fit the tile."""
    spec = model.input
    pixel = len(spec.channels) * (1 if spec.dtype == "uint8" else 4) + 1
    copies = 4 if options.probabilities else 1  # of the sums: the softmax makes three
    column = spec.height * (4 * copies * len(model.classes) + 4 + pixel)
    window = (spec.height, spec.width)
    return make_grid(source.height, source.width, window, options.overlap, 10**6 * options.memory // column)


def blended(
    model: SegmentationModel, source: Source, grid: Grid, options: Options, first: int = 0, summary: Summary | None = None
) -> Generator[tuple[RowEnd, Blended | None], None, None]:
    """The ends of rows of tiles with their finished pieces, from the piece of index `first` on; close it when done."""
    reading = Reading(source, model.input, grid, options.batch, options.min_valid)
    read = ahead(reading.batches(first), _READ_AHEAD)
    scored = ahead(_scores(model.engine, read, summary or Summary()), _SCORED_AHEAD)
    with closing(scored):
        yield from blend(scored, grid, len(model.classes))


def _scores(
    engine: Engine, items: Generator[Batch | RowEnd, None, None], summary: Summary
) -> Generator[Scored | RowEnd, None, None]:
    with closing(items):
        for item in items:
            if isinstance(item, RowEnd):
                yield item
                continue
            start = perf_counter()
            logits = engine.run(item.inputs)["logits"]
            summary.engine_seconds += perf_counter() - start
            summary.run += len(item.columns)
            yield Scored(item, logits)


def _tiles_before(grid: Grid, first: int) -> int:
    return sum(len(piece.block.tiles) for piece in grid.pieces() if piece.index < first)
