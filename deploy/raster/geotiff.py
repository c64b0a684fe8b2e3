"""The finished result as GeoTIFF: tiled, deflated, with overviews, where the input lies on the earth."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from deploy.bundle.manifest import ClassInfo
from deploy.errors import DISK_FULL, UserError
from deploy.files.atomic import named_write_errors, sibling, sync_folder
from deploy.raster.geo import GeoSource, first_line, gdal, gdal_errors
from deploy.raster.parts import Planes
from deploy.raster.sources import NODATA, PROBABILITY_STEPS

_TILE = 256
_FULL = 2**20
"""Bytes: with less left, a failed write is put down to the disk."""
_CHUNK = 2 * _TILE
"""Rows that are compressed at a time."""


def write_labels(out: Path, planes: Planes, source: GeoSource, classes: Sequence[ClassInfo]) -> None:
    """Write label ids as one band of uint8 with the colors of the classes and 255 for no data, atomically.

    `UserError` naming the file when it cannot be written, or does not read back as it was written.
    """
    with _geotiff(out, planes, source, nodata=NODATA) as file:
        file.write_colormap(1, {i: (*one.color, 255) for i, one in enumerate(classes)})
        file.set_band_description(1, "label")
        file.update_tags(**{f"CLASS_{i}": one.name for i, one in enumerate(classes)})


def write_probabilities(out: Path, planes: Planes, source: GeoSource, classes: Sequence[ClassInfo]) -> None:
    """Write a band for each class: float32 with NaN for no data, or uint8 with a scale of 1/254 and 255; atomically.

    Raises as `write_labels` does.
    """
    integers = planes.dtype == np.uint8
    with _geotiff(out, planes, source, nodata=NODATA if integers else np.nan) as file:
        for i, one in enumerate(classes, 1):
            file.set_band_description(i, one.name)
        if integers:
            file.scales = [1 / PROBABILITY_STEPS] * planes.planes


@contextmanager
def _geotiff(out: Path, planes: Planes, source: GeoSource, nodata: float) -> Iterator[Any]:
    """A new file, for the caller to describe; when the block ends it is filled, checked and put in its place."""
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


def _profile(planes: Planes, source: GeoSource, nodata: float) -> dict[str, Any]:
    dataset = source.dataset
    return {
        "driver": "GTiff",
        "height": source.height,
        "width": source.width,
        "count": planes.planes,
        "dtype": planes.dtype.name,
        "nodata": nodata,
        "crs": dataset.crs,
        "transform": None if dataset.transform.is_identity else dataset.transform,
        "tiled": True,
        "blockxsize": _TILE,
        "blockysize": _TILE,
        "interleave": "band",
        "compress": "deflate",
        "zlevel": 6,
        "predictor": 3 if planes.dtype.kind == "f" else 1,
        "bigtiff": "if_safer",
    }


def _place(file: Any, source: GeoSource) -> None:
    """Ground control points stand in for a transform in rasters that were not rectified."""
    points, crs = source.dataset.gcps
    if points and source.dataset.transform.is_identity:
        file.gcps = (points, crs)


def _fill(file: Any, planes: Planes, rasterio: Any) -> None:
    for plane, window, values in _chunks(planes, rasterio):
        file.write(values, plane + 1, window=window)


def _check(path: Path, planes: Planes, rasterio: Any) -> None:
    """GDAL may close a file that met a full disk without a word."""
    with rasterio.open(path) as file:
        for plane, window, values in _chunks(planes, rasterio):
            if not np.array_equal(
                file.read(plane + 1, window=window), values, equal_nan=values.dtype.kind == "f"
            ):
                raise rasterio.errors.RasterioIOError("it does not read back as it was written")


def _chunks(planes: Planes, rasterio: Any) -> Iterator[tuple[int, Any, np.ndarray]]:
    height, width = planes.grid.height, planes.grid.width
    for plane in range(planes.planes):
        for top in range(0, height, _CHUNK):
            bottom = min(top + _CHUNK, height)
            window = rasterio.windows.Window(0, top, width, bottom - top)
            yield plane, window, planes.read(plane, top, bottom)


def _add_overviews(path: Path, rasterio: Any) -> None:
    """Halved until they fit a tile; of labels the nearest, as a mean of them would be another class."""
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
        return "the disk is full; free some space and go on with --resume"
    return f"cannot be written ({text}); mend that and go on with --resume"
