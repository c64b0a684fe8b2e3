"""GeoTIFF, and whatever else GDAL reads, as a source. The only modules that need rasterio are this and `geotiff`."""

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
"""GDAL's cache of decoded blocks. Its own choice would grow with the machine, and so would our memory."""


def import_rasterio() -> Any:
    """The module; `UserError` where it cannot be imported."""
    try:
        import rasterio
    except (ImportError, OSError) as error:  # OSError: it is installed, but not the libraries it loads
        raise UserError(f"GeoTIFFs need rasterio ({error}): pip install 'edgedistill[geo]'") from error
    return rasterio


def gdal_errors() -> tuple[type[Exception], ...]:
    """What reading and writing may raise: errors of GDAL also come as they are, without rasterio's public base."""
    import_rasterio()
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import RasterioError

    return RasterioError, CPLE_BaseError


@contextmanager
def gdal() -> Iterator[Any]:
    """rasterio, with a bounded cache, in this thread; without its remark on rasters that lie nowhere."""
    rasterio = import_rasterio()
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=_CACHE_MB):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield rasterio


class GeoSource:
    """Bands of a raster file, in the order of `bands` (numbers from 1; None: all but an alpha band).

    The no-data value, masks and an alpha band tell which numbers are none. A uint8 pixel has no data when all its bands
    have none (0 is a color, too), others when any band has none, or is NaN. Scale and offset of the file are applied,
    unless the numbers are uint8, which go to the network as stored.
    Raises `UserError` naming the file when it cannot be opened or has no such band.
    """

    def __init__(self, path: Path, bands: Sequence[int] | None = None) -> None:
        self.path = path
        if not path.exists():
            raise UserError(f"{path}: no such file")
        with gdal() as rasterio:
            try:
                self.dataset = rasterio.open(path)
            except gdal_errors() as error:
                raise UserError(f"{path}: is no raster that GDAL can read ({first_line(error)})") from error
        self.indexes = list(bands) if bands is not None else self._colors()
        known = range(1, self.dataset.count + 1)
        if not self.indexes or any(band not in known for band in self.indexes):
            raise UserError(f"{path}: has bands 1 to {self.dataset.count}, asked for are {self.indexes}")
        self.height, self.width, self.bands = self.dataset.height, self.dataset.width, len(self.indexes)
        chosen = [band - 1 for band in self.indexes]
        self.dtype = np.result_type(*(_dtype(self.dataset.dtypes[band]) for band in chosen))
        self._scales = np.array([self.dataset.scales[band] for band in chosen])
        self._offsets = np.array([self.dataset.offsets[band] for band in chosen])
        self._scaled = self.dtype != np.uint8 and bool(((self._scales != 1) | (self._offsets != 0)).any())
        flags = [self.dataset.mask_flag_enums[band] for band in chosen]
        self._masked = any(flag != [rasterio.enums.MaskFlags.all_valid] for flag in flags)

    def read_window(self, row: int, col: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Source.read_window`. `UserError` naming the file and the place when it cannot be read."""
        rasterio = import_rasterio()
        # Not `gdal()`: filters of warnings belong to the process, and this runs beside other threads.
        with rasterio.Env(GDAL_CACHEMAX=_CACHE_MB):
            window = rasterio.windows.Window(col, row, width, height)
            try:
                pixels = self.dataset.read(self.indexes, window=window)
                masks = self.dataset.read_masks(self.indexes, window=window) if self._masked else None
            except gdal_errors() as error:
                raise UserError(
                    f"{self.path}: rows {row} to {row + height - 1}, columns {col} to {col + width - 1} cannot be read "
                    f"({first_line(error)}); if that passes, go on with --resume; a mended file must be begun anew"
                ) from error
        valid = np.ones((height, width), bool)
        if masks is not None:
            valid = (masks > 0).any(axis=0) if self.dtype == np.uint8 else (masks > 0).all(axis=0)
        pixels = np.moveaxis(pixels, 0, -1)
        if self._scaled:
            pixels = pixels * self._scales + self._offsets
        return (pixels if self.dtype == np.uint8 else pixels.astype(np.float32)), valid

    def fingerprint(self) -> Fingerprint:
        """What tells whether the file is still the same: size, time of change, and its first 64 KiB."""
        about = self.path.stat()
        with open(self.path, "rb") as file:
            head = hashlib.sha256(file.read(65536)).hexdigest()
        return {"input": [about.st_size, about.st_mtime_ns, head], "bands": self.indexes}

    def close(self) -> None:
        """Close the file."""
        self.dataset.close()

    def _colors(self) -> list[int]:
        alpha = import_rasterio().enums.ColorInterp.alpha
        return [i for i, kind in enumerate(self.dataset.colorinterp, 1) if kind != alpha]


def _dtype(name: str) -> np.dtype:
    """numpy has no complex integers; they are refused as any complex numbers are."""
    return np.dtype("complex64" if name.startswith("complex") else name)


def first_line(error: BaseException) -> str:
    """What GDAL says: rasterio has it as the cause of its own "see previous exception"."""
    text = str(error.__cause__ or error)
    return (text.splitlines() or [type(error).__name__])[0]
