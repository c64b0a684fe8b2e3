"""Write labels and probabilities as GeoTIFFs: tiled, deflated, with overviews, georeferenced like the input."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from deploy.bundle.manifest import ClassInfo
from deploy.errors import DISK_FULL, UserError
from deploy.files.atomic import named_write_errors, require_name, sibling, sync_folder
from deploy.files.gdal import first_line, gdal, gdal_errors
from deploy.files.place import Place

NODATA = 255
"""Label of pixels without data, independent of the bundle's ignore label."""
PROBABILITY_STEPS = 254
"""uint8 probabilities are in units of 1/254; 255 is no data."""
_TILE = 256
_FULL = 2**20
"""Bytes: with less free space, a failed write is attributed to a full disk."""
_CHUNK = 2 * _TILE
"""Rows that are written at a time."""


class Planes(Protocol):
    """A complete result K×H×W."""

    @property
    def planes(self) -> int:
        """K."""
        ...

    @property
    def dtype(self) -> np.dtype: ...

    def read(self, plane: int, top: int, bottom: int) -> np.ndarray:
        """Rows [top, bottom) of a plane, full width."""
        ...


class Georeferenced(Protocol):
    """What has been predicted."""

    @property
    def height(self) -> int:
        """Rows."""
        ...

    @property
    def width(self) -> int:
        """Columns."""
        ...

    @property
    def place(self) -> Place:
        """Where it lies."""
        ...


class Labels(NamedTuple):
    """Labels in memory: both the result and, as they are one for each pixel, what tells the size of the image."""

    ids: np.ndarray
    """uint8 H×W, with `NODATA`."""
    place: Place

    @property
    def planes(self) -> int:
        """K."""
        return 1

    @property
    def dtype(self) -> np.dtype:
        """That of the ids."""
        return self.ids.dtype

    @property
    def height(self) -> int:
        """Rows."""
        return self.ids.shape[0]

    @property
    def width(self) -> int:
        """Columns."""
        return self.ids.shape[1]

    def read(self, plane: int, top: int, bottom: int) -> np.ndarray:
        """See `Planes.read`."""
        assert plane == 0
        return self.ids[top:bottom]


def write_labels(out: Path, planes: Planes, source: Georeferenced, classes: Sequence[ClassInfo]) -> None:
    """Write label ids as one band of uint8 with the colors of the classes and 255 for no data, atomically.

    Raises:
        UserError: the file cannot be written, or does not read back as written; the message names it.
    """
    with _geotiff(out, planes, source, nodata=NODATA) as file:
        file.write_colormap(1, {i: (*one.color, 255) for i, one in enumerate(classes)})
        file.set_band_description(1, "label")
        file.update_tags(**{f"CLASS_{i}": one.name for i, one in enumerate(classes)})


def write_probabilities(
    out: Path, planes: Planes, source: Georeferenced, classes: Sequence[ClassInfo]
) -> None:
    """Write probabilities as one band for each class, atomically.

    Bands are float32 with NaN for no data, or uint8 with a scale of 1/254 and 255 for no data.

    Raises:
        UserError: as `write_labels`.
    """
    integers = planes.dtype == np.uint8
    with _geotiff(out, planes, source, nodata=NODATA if integers else np.nan) as file:
        for i, one in enumerate(classes, 1):
            file.set_band_description(i, one.name)
        if integers:
            file.scales = [1 / PROBABILITY_STEPS] * planes.planes


def probabilities_path(out: Path) -> Path:
    """The file of probabilities, beside the labels."""
    return require_name(out).with_name(f"{out.stem}_probabilities.tif")


@contextmanager
def _geotiff(out: Path, planes: Planes, source: Georeferenced, nodata: float) -> Iterator[Any]:
    """Open a new file for the caller to describe; at the end of the block, fill it, check it and move it to `out`."""
    temporary = sibling(out)
    try:
        with named_write_errors(out, temporary), gdal() as rasterio:
            try:
                with rasterio.open(temporary, "w", **_profile(planes, source, nodata)) as file:
                    _place(file, source)
                    yield file
                    _fill(file, planes, rasterio)
                _add_overviews(temporary, rasterio)
                _check(temporary, planes, rasterio)
            except gdal_errors() as error:
                raise UserError(f"{out}: {_reason(error, out)}") from error
            with open(temporary, "r+b") as done:
                os.fsync(done.fileno())
            os.replace(temporary, out)
            sync_folder(out.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _profile(planes: Planes, source: Georeferenced, nodata: float) -> dict[str, Any]:
    place = source.place
    return {
        "driver": "GTiff",
        "height": source.height,
        "width": source.width,
        "count": planes.planes,
        "dtype": planes.dtype.name,
        "nodata": nodata,
        "crs": place.crs,
        "transform": None if place.transform.is_identity else place.transform,
        "tiled": True,
        "blockxsize": _TILE,
        "blockysize": _TILE,
        "interleave": "band",
        "photometric": "minisblack",  # GDAL would make alpha of the last of four
        "compress": "deflate",
        "zlevel": 6,
        "predictor": 3 if planes.dtype.kind == "f" else 1,
        "bigtiff": "if_safer",
    }


def _place(file: Any, source: Georeferenced) -> None:
    """Copy ground control points, which replace the transform in rasters that are not rectified."""
    place = source.place
    if place.points and place.transform.is_identity:
        file.gcps = (list(place.points), place.points_crs)


def _fill(file: Any, planes: Planes, rasterio: Any) -> None:
    for plane, window, values in _chunks(file, planes, rasterio):
        file.write(values, plane + 1, window=window)


def _check(path: Path, planes: Planes, rasterio: Any) -> None:
    """Read the file back: GDAL may close a file without an error although the disk was full."""
    with rasterio.open(path) as file:
        for plane, window, values in _chunks(file, planes, rasterio):
            if not np.array_equal(
                file.read(plane + 1, window=window), values, equal_nan=values.dtype.kind == "f"
            ):
                raise rasterio.errors.RasterioIOError("it does not read back as it was written")


def _chunks(file: Any, planes: Planes, rasterio: Any) -> Iterator[tuple[int, Any, np.ndarray]]:
    height, width = file.height, file.width
    for plane in range(planes.planes):
        for top in range(0, height, _CHUNK):
            bottom = min(top + _CHUNK, height)
            window = rasterio.windows.Window(0, top, width, bottom - top)
            yield plane, window, planes.read(plane, top, bottom)


def _add_overviews(path: Path, rasterio: Any) -> None:
    """Add overviews, halved until they fit a tile; by nearest neighbor, since a mean of labels is another class."""
    with rasterio.open(path, "r+") as file:
        factors, side = [], max(file.width, file.height)
        while side > _TILE:
            factors.append(2 ** (len(factors) + 1))
            side //= 2
        if factors:
            file.build_overviews(factors, rasterio.enums.Resampling.nearest)


def _reason(error: BaseException, out: Path) -> str:
    text = first_line(error)
    full = any(os.strerror(code) in text for code in DISK_FULL)
    if full or shutil.disk_usage(out.parent).free < _FULL:
        return "the disk is full; free some space and continue with --resume"
    return f"cannot be written ({text}); fix that and continue with --resume"
