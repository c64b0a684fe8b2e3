"""Rasters as chunks that workers predict independently, and the files in which these are until all are there."""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from deploy.errors import UserError
from deploy.files.atomic import write_json
from deploy.files.json_files import read_json
from deploy.raster.chunks import Chunk, chunks_of, region, region_read
from deploy.raster.grid import Grid
from deploy.raster.mosaic import Mosaic
from deploy.raster.opening import GeoFile
from deploy.raster.predict import Options

LABELS, PROBABILITIES = "labels", "probabilities"
_PLAN = "plan.json"
_MOST_ROWS, _ENOUGH_ROWS, _LEAST_ROWS = 16, 8, 4
"""Rows of tiles in a chunk. Each chunk runs one row more: few rows cost more, many leave workers idle at the end."""
_CHUNKS_EACH = (3, 2, 1)
"""Chunks for each thread of the cluster: the more, the less a lost or slow worker costs. The first number counts by
which chunks have enough rows."""


@dataclass(frozen=True)
class Scene:
    """A raster to predict, as it is sent to workers."""

    raster: GeoFile | Mosaic
    name: str
    """That of the GeoTIFF of its labels in the output folder."""
    stamp: str
    """What identifies the content of the input."""
    grid: Grid
    options: Options
    classes: int
    folder: Path = Path()
    """Where its finished chunks are."""
    rows: int = _MOST_ROWS
    """Rows of tiles in a chunk, at most."""

    @property
    def input(self) -> str:
        """Name of the input."""
        return self.raster.path.name

    def chunks(self) -> tuple[Chunk, ...]:
        """Its chunks."""
        return chunks_of(self.grid, self.rows)

    def missing(self) -> list[Chunk]:
        """The chunks that are not finished."""
        return [one for one in self.chunks() if not chunk_file(self.folder, LABELS, one).is_file()]

    def only(self, chunk: Chunk) -> "Scene":
        """The scene with only the files that a chunk needs."""
        where = region_read(self.grid, chunk)
        return replace(self, raster=self.raster.within(where.top, where.left, where.height, where.width))


class _Plan(msgspec.Struct, frozen=True):
    """`plan.json`: what the chunks in a folder are of."""

    stamp: str
    rows: int


def stamp_of(fingerprint: object) -> str:
    """A short text for a fingerprint."""
    return hashlib.sha256(msgspec.json.encode(fingerprint, order="sorted")).hexdigest()[:32]


def rows_for(scenes: Sequence[Scene], threads: int) -> int:
    """Rows of tiles in a chunk, so that a cluster of so many threads is busy to the end."""
    pieces = sum(one.grid.count for one in scenes)
    choices = [-(-pieces // (each * threads)) for each in _CHUNKS_EACH]
    rows = next((one for one in choices if one >= _ENOUGH_ROWS), choices[-1])
    return min(_MOST_ROWS, max(_LEAST_ROWS, rows))


def prepared(scene: Scene, rows: int) -> tuple[Scene, bool]:
    """Prepare the folder of a scene's chunks. Those of an earlier run stay, and so does its number of rows.

    Returns:
        The scene with its number of rows; and whether chunks were removed, as the input has changed since.
    """
    path = scene.folder / _PLAN
    try:
        plan = read_json(path, _Plan)
    except (OSError, ValueError):
        plan = None
    if plan is not None and plan.stamp == scene.stamp:
        return replace(scene, rows=plan.rows), False
    shutil.rmtree(scene.folder, ignore_errors=True)
    write_json(path, _Plan(scene.stamp, rows))
    return replace(scene, rows=rows), plan is not None


def chunk_file(folder: Path, kind: str, chunk: Chunk) -> Path:
    """The file of a finished chunk: labels H×W, or probabilities K×H×W."""
    return folder / f"{kind}-{chunk.first:07d}-{chunk.stop:07d}.npy"


class ChunkFiles:
    """Finished chunks as the whole result: a `deploy.tasks.segmentation.geotiff.Planes`."""

    def __init__(self, scene: Scene, kind: str) -> None:
        self.scene, self.kind, self.grid = scene, kind, scene.grid
        labels = kind == LABELS
        self.planes = 1 if labels else scene.classes
        self.dtype = np.dtype(np.uint8 if labels else scene.options.probabilities)

    def read(self, plane: int, top: int, bottom: int) -> np.ndarray:
        """See `deploy.tasks.segmentation.geotiff.Planes.read`.

        Raises:
            UserError: a chunk is missing or damaged; the message names it.
        """
        rows = np.empty((bottom - top, self.grid.width), self.dtype)
        for chunk in self.scene.chunks():
            where = region(self.grid, chunk)
            first, last = max(top, where.top), min(bottom, where.bottom)
            if first < last:
                values = self._load(chunk, (where.height, where.width))[plane]
                rows[first - top : last - top, where.left : where.right] = values[
                    first - where.top : last - where.top
                ]
        return rows

    def _load(self, chunk: Chunk, size: tuple[int, int]) -> np.ndarray:
        """A chunk planes×H×W, read on demand."""
        path = chunk_file(self.scene.folder, self.kind, chunk)
        try:
            values = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{path}: cannot be read ({error}); remove it and continue with --resume"
            ) from error
        values = values[None] if self.kind == LABELS else values
        if values.shape != (self.planes, *size) or values.dtype != self.dtype:
            raise UserError(f"{path}: is damaged; remove it and continue with --resume")
        return values
