"""Several GeoTIFFs on one grid of pixels as one raster, without writing it.

Where files overlap, the later one counts wherever it has data; gaps between them have no data. Nothing is resampled.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from deploy.errors import UserError
from deploy.files.decoding import check_order
from deploy.files.journal import Fingerprint
from deploy.files.place import Place
from deploy.raster.geo import GeoSource, file_fingerprint

_OPEN = 16
"""Files that are kept open: mosaics may have thousands."""
_ALIGNED = 0.01
"""Pixels by which a file may be off the grid: coordinates are rounded when they are written."""


@dataclass(frozen=True)
class Member:
    """A file of a mosaic, or some bands of it."""

    path: Path
    row: int
    """Row of the mosaic at which its part begins."""
    col: int
    height: int
    width: int
    """Of its part."""
    top: int = 0
    """First row of the file that belongs to the mosaic."""
    left: int = 0
    bands: tuple[int, ...] | None = None
    """Bands to read, numbered from 1; None: all but alpha."""
    channels: tuple[int, ...] | None = None
    """The channels of the mosaic that they are, from 0; None: all."""

    def touches(self, row: int, col: int, height: int, width: int) -> bool:
        """Whether it has pixels in a window of the mosaic."""
        below, right = self.row + self.height, self.col + self.width
        return self.row < row + height and row < below and self.col < col + width and col < right


@dataclass(frozen=True)
class Mosaic:
    """The plan of a mosaic, without open files: it can be sent to another process."""

    path: Path
    """What the user named: a folder or a VRT."""
    members: tuple[Member, ...]
    """In the order of painting."""
    height: int
    width: int
    names: tuple[str, ...]
    """Descriptions of the channels, "" where one has none."""
    dtype: np.dtype
    place: Place

    def files(self) -> list[Path]:
        """The files, each once."""
        return list(dict.fromkeys(one.path for one in self.members))

    def open(self) -> "MosaicSource":
        """Open it; files are opened when they are needed."""
        return MosaicSource(self)

    def within(self, row: int, col: int, height: int, width: int) -> "Mosaic":
        """The mosaic with only the files that a window needs."""
        kept = (one for one in self.members if one.touches(row, col, height, width))
        return replace(self, members=tuple(kept))


class MosaicSource:
    """A mosaic as a source; see `deploy.raster.geo.GeoRaster`."""

    def __init__(self, mosaic: Mosaic) -> None:
        self.mosaic, self.path, self.place = mosaic, mosaic.path, mosaic.place
        self.height, self.width, self.dtype = mosaic.height, mosaic.width, mosaic.dtype
        self.bands, self.names = len(mosaic.names), mosaic.names
        self._open: OrderedDict[tuple[Path, tuple[int, ...] | None], GeoSource] = OrderedDict()

    def read_window(self, row: int, col: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Source.read_window`.

        Raises:
            UserError: a file is missing or damaged, or another one than when the mosaic was planned.
        """
        pixels = np.zeros((height, width, self.bands), np.uint8 if self.dtype == np.uint8 else np.float32)
        known = np.zeros(pixels.shape, bool)
        for member in self.mosaic.members:
            if member.touches(row, col, height, width):
                self._paint(member, row, col, pixels, known)
        # a color may be 0 in some channels
        return pixels, np.any(known, axis=2) if pixels.dtype == np.uint8 else np.all(known, axis=2)

    def fingerprint(self) -> Fingerprint:
        """What identifies the input: the size, time and first bytes of all files, and where they lie."""
        files = self.mosaic.files()
        each = [[str(path), *file_fingerprint(path)] for path in files]
        layout = [repr(one) for one in self.mosaic.members]
        digest = hashlib.sha256(msgspec.json.encode([each, layout])).hexdigest()
        return {"input": [len(files), digest], "bands": self.bands}

    def close(self) -> None:
        """Close all files."""
        while self._open:
            self._open.popitem()[1].close()

    def _paint(self, member: Member, row: int, col: int, pixels: np.ndarray, known: np.ndarray) -> None:
        """Write the pixels with data of a file into a window that begins at a row and column of the mosaic."""
        top, bottom = max(row, member.row), min(row + pixels.shape[0], member.row + member.height)
        left, right = max(col, member.col), min(col + pixels.shape[1], member.col + member.width)
        at = (top - member.row + member.top, left - member.col + member.left)
        values, valid = self._source(member).read_window(*at, bottom - top, right - left)
        if values.dtype.kind == "f":
            valid = valid & np.isfinite(values).all(axis=2)
        window = (slice(top - row, bottom - row), slice(left - col, right - col))
        channels = member.channels or range(self.bands)
        for channel, plane in zip(channels, np.moveaxis(values, -1, 0), strict=True):
            pixels[(*window, channel)][valid] = plane[valid]
            known[(*window, channel)] |= valid

    def _source(self, member: Member) -> GeoSource:
        key = (member.path, member.bands)
        source = self._open.pop(key, None) or GeoSource(member.path, member.bands)
        self._open[key] = source  # the last one is the most recently used
        if len(self._open) > _OPEN:
            self._open.popitem(last=False)[1].close()
        count = len(member.channels or range(self.bands))
        if source.dtype != self.dtype or source.bands != count:
            raise UserError(
                f"{member.path}: has {source.bands} band(s) of {source.dtype}, others of {self.path} {count} of "
                f"{self.dtype}; convert it with gdal_translate"
            )
        return source


def mosaic_of(path: Path, files: Sequence[Path], bands: Sequence[int] | None) -> Mosaic:
    """Plan a mosaic of files, which are painted in this order.

    Args:
        path: what the user named, for messages.
        files: GeoTIFFs, at least one.
        bands: bands to read, numbered from 1; None: all but alpha.

    Raises:
        UserError: a file cannot be read, or differs from the first: in its bands and their type, or its coordinate
            system, pixel size and grid. The message names it, and the remedy.
    """
    chosen = None if bands is None else tuple(bands)
    first = _look(files[0], chosen)
    members = []
    for file in files:
        found = _look(file, chosen)
        _check_alike(found, first)
        row, col = _offset(found, first) if len(files) > 1 else (0, 0)
        members.append(Member(file, row, col, found.height, found.width, bands=chosen))
    top, left = min(one.row for one in members), min(one.col for one in members)
    members = [replace(one, row=one.row - top, col=one.col - left) for one in members]
    place = first.place
    if (top, left) != (0, 0):
        place = place._replace(transform=_shifted(place.transform, top, left))
    return Mosaic(path, tuple(members), *extent(members), first.names, first.dtype, place)


class _Seen(NamedTuple):
    """What a file says of itself."""

    path: Path
    height: int
    width: int
    names: tuple[str, ...]
    dtype: np.dtype
    place: Place


def _look(path: Path, bands: Sequence[int] | None) -> _Seen:
    with closing(GeoSource(path, bands)) as source:
        return _Seen(path, source.height, source.width, tuple(source.names), source.dtype, source.place)


def extent(members: Iterable[Member]) -> tuple[int, int]:
    """Height and width of a mosaic that begins at row and column 0."""
    ends = [(one.row + one.height, one.col + one.width) for one in members]
    return max(row for row, _ in ends), max(col for _, col in ends)


def _offset(source: _Seen, first: _Seen) -> tuple[int, int]:
    """Row and column of the first file's grid at which another file begins."""
    here, there = first.place, source.place
    if here.points or there.points or here.transform.is_identity or there.transform.is_identity:
        bare = first if here.points or here.transform.is_identity else source
        raise UserError(f"{bare.path}: has no transform, so its place in a mosaic is unknown; gdalwarp it")
    if here.crs != there.crs:
        raise UserError(
            f"{source.path}: its coordinate system is {_name(there.crs)}, that of {first.path.name} "
            f"{_name(here.crs)}; gdalwarp -t_srs {_name(here.crs)}"
        )
    if not _same_pixels(here.transform, there.transform, max(source.height, source.width)):
        raise UserError(
            f"{source.path}: its pixels measure {_size(there.transform)}, those of {first.path.name} "
            f"{_size(here.transform)}; gdalwarp -tap -tr {_size(here.transform, ' ')}"
        )
    row, col = _position(here.transform, there.transform.c, there.transform.f)
    if max(abs(col - round(col)), abs(row - round(row))) > _ALIGNED:
        raise UserError(
            f"{source.path}: lies {abs(row - round(row)):.2f} rows and {abs(col - round(col)):.2f} columns off the "
            f"pixels of {first.path.name}; gdalwarp -tap -tr {_size(here.transform, ' ')} both"
        )
    return round(row), round(col)


# affine 3 wants the operator @ for what earlier versions only do by *


def _position(transform: Any, x: float, y: float) -> tuple[float, float]:
    """Row and column of a point on the ground."""
    a, b, c, d, e, f = transform[:6]
    determinant = a * e - b * d
    return (a * (y - f) - d * (x - c)) / determinant, (e * (x - c) - b * (y - f)) / determinant


def _shifted(transform: Any, row: int, col: int) -> Any:
    """The transform of a raster that begins at this row and column."""
    a, b, c, d, e, f = transform[:6]
    return type(transform)(a, b, c + a * col + b * row, d, e, f + d * col + e * row)


def _same_pixels(one: Any, other: Any, side: int) -> bool:
    """Whether two transforms have the same pixels, so that even at the far side of a file they do not drift apart."""
    shape, drift = (one.a, one.b, one.d, one.e), max(abs(one.a), abs(one.b)) * _ALIGNED / side
    return all(abs(a - b) <= drift for a, b in zip(shape, (other.a, other.b, other.d, other.e), strict=True))


def _check_alike(source: _Seen, first: _Seen) -> None:
    if (len(source.names), source.dtype) != (len(first.names), first.dtype):
        raise UserError(
            f"{source.path}: has {len(source.names)} band(s) of {source.dtype}, {first.path.name} {len(first.names)} "
            f"of {first.dtype}; convert it with gdal_translate"
        )
    check_order(source.path, source.names, first.names)


def _name(crs: Any) -> str:
    return "unknown" if crs is None else crs.to_string()[:60]


def _size(transform: Any, between: str = "×") -> str:
    return f"{abs(transform.a):g}{between}{abs(transform.e):g}"
