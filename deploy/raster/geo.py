"""GeoTIFFs and other rasters that GDAL reads, as a source. Only this module and `geotiff` need rasterio."""

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from deploy.errors import UserError
from deploy.raster.journal import Fingerprint

_CACHE_MB = 64
"""GDAL's cache of decoded blocks. By default it grows with the machine's memory."""


def import_rasterio() -> Any:
    """Import rasterio, an optional dependency.

    Raises:
        UserError: it cannot be imported.
    """
    try:
        import rasterio
    except (ImportError, OSError) as error:  # OSError: a library that it loads is missing
        raise UserError(f"GeoTIFFs need rasterio ({error}): pip install 'edgedistill[geo]'") from error
    return rasterio


def gdal_errors() -> tuple[type[Exception], ...]:
    """Exceptions of reading and writing: GDAL's own errors do not derive from rasterio's public base class."""
    import_rasterio()
    from rasterio._err import CPLE_BaseError  # optional dependency
    from rasterio.errors import RasterioError

    return RasterioError, CPLE_BaseError


@contextmanager
def gdal() -> Iterator[Any]:
    """rasterio with a bounded cache, in this thread, without warnings about rasters that are not georeferenced."""
    rasterio = import_rasterio()
    from rasterio.errors import NotGeoreferencedWarning  # optional dependency

    with warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=_CACHE_MB):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield rasterio


class GeoSource:
    """Bands of a raster file.

    The no-data value, masks and an alpha band mark values without data. A uint8 pixel has no data if none of its bands
    has any (0 is also a color); other pixels if any band has none or is NaN. Scale and offset of the file are applied,
    except to uint8 values, which the network takes as stored.

    Args:
        path: the file.
        bands: bands to read, in this order, numbered from 1; None: all but an alpha band.

    Raises:
        UserError: the file cannot be opened or lacks a band; the message names the file.
    """

    def __init__(self, path: Path, bands: Sequence[int] | None = None) -> None:
        self.path = path
        if not path.exists():
            raise UserError(f"{path}: no such file")
        with gdal() as rasterio:
            try:
                # by content, GDAL also opens VRT and WMS, which read other files and the network
                self.dataset = rasterio.open(path, driver="GTiff")
            except gdal_errors() as error:
                raise UserError(
                    f"{path}: is not a GeoTIFF that GDAL can read ({first_line(error)})"
                ) from error
        self.indexes = list(bands) if bands is not None else self._colors()
        known = range(1, self.dataset.count + 1)
        if not self.indexes or any(band not in known for band in self.indexes):
            raise UserError(f"{path}: has bands 1 to {self.dataset.count}, but {self.indexes} were requested")
        self.height, self.width, self.bands = self.dataset.height, self.dataset.width, len(self.indexes)
        chosen = [band - 1 for band in self.indexes]
        self.dtype = np.result_type(*(_dtype(self.dataset.dtypes[band]) for band in chosen))
        self._scales = np.array([self.dataset.scales[band] for band in chosen])
        self._offsets = np.array([self.dataset.offsets[band] for band in chosen])
        self._scaled = self.dtype != np.uint8 and bool(((self._scales != 1) | (self._offsets != 0)).any())
        flags = [self.dataset.mask_flag_enums[band] for band in chosen]
        self._masked = any(flag != [rasterio.enums.MaskFlags.all_valid] for flag in flags)

    def read_window(self, row: int, col: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Source.read_window`.

        Raises:
            UserError: the window cannot be read; the message names the file and the window.
        """
        rasterio = import_rasterio()
        # Not `gdal()`: warning filters belong to the process, and this runs in parallel with other threads.
        with rasterio.Env(GDAL_CACHEMAX=_CACHE_MB):
            window = rasterio.windows.Window(col, row, width, height)
            try:
                pixels = self.dataset.read(self.indexes, window=window)
                masks = self.dataset.read_masks(self.indexes, window=window) if self._masked else None
            except gdal_errors() as error:
                raise UserError(
                    f"{self.path}: rows {row} to {row + height - 1}, columns {col} to {col + width - 1} cannot be read "
                    f"({first_line(error)}); if temporary, continue with --resume; else repair the file and start over"
                ) from error
        valid = np.ones((height, width), bool)
        if masks is not None:
            valid = (masks > 0).any(axis=0) if self.dtype == np.uint8 else (masks > 0).all(axis=0)
        pixels = np.moveaxis(pixels, 0, -1)
        if self._scaled:
            pixels = pixels * self._scales + self._offsets
        return (pixels if self.dtype == np.uint8 else pixels.astype(np.float32)), valid

    def fingerprint(self) -> Fingerprint:
        """What identifies the input: size, modification time, hash of the first 64 KiB; and the bands."""
        info = self.path.stat()
        with open(self.path, "rb") as file:
            head = hashlib.sha256(file.read(65536)).hexdigest()
        return {"input": [info.st_size, info.st_mtime_ns, head], "bands": self.indexes}

    def close(self) -> None:
        """Close the file."""
        self.dataset.close()

    def _colors(self) -> list[int]:
        alpha = import_rasterio().enums.ColorInterp.alpha
        return [i for i, kind in enumerate(self.dataset.colorinterp, 1) if kind != alpha]


def _dtype(name: str) -> np.dtype:
    """The numpy dtype; numpy has no complex integers, which are refused like all complex numbers."""
    return np.dtype("complex64" if name.startswith("complex") else name)


def first_line(error: BaseException) -> str:
    """GDAL's message, which rasterio stores as the cause of its own "see previous exception"."""
    text = str(error.__cause__ or error)
    return (text.splitlines() or [type(error).__name__])[0]
