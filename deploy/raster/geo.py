"""GeoTIFFs and other rasters that GDAL reads, as a source."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from deploy.errors import UserError
from deploy.files.gdal import CACHE_MB, first_line, gdal, gdal_errors, import_rasterio
from deploy.files.journal import Fingerprint
from deploy.files.place import Place, place_in
from deploy.files.tiff import undecodable
from deploy.files.tiff_header import read_header
from deploy.files.tiff_values import dtype_of, interpret
from deploy.raster.sources import Source


class GeoRaster(Source, Protocol):
    """A source with a place on the ground."""

    @property
    def path(self) -> Path:
        """What the user named."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """Descriptions of the bands, "" where one has none."""
        ...

    @property
    def place(self) -> Place:
        """Where it lies."""
        ...

    def fingerprint(self) -> Fingerprint:
        """What identifies the input."""
        ...

    def close(self) -> None:
        """Close all files."""
        ...


class GeoSource:
    """Bands of a GeoTIFF, with the meaning that `deploy.files.tiff_values` gives to its numbers.

    A uint8 pixel has no data if none of its bands has any (0 is also a color); other pixels if any band has none.

    Args:
        path: the file.
        bands: bands to read, in this order, numbered from 1; None: all but an alpha band, which is a mask. An alpha
            band that is named here is data. A palette has three: its colors.

    Raises:
        UserError: the file cannot be opened, leaves open what its numbers mean, or lacks a band; the message names it.
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
                raise UserError(f"{path}: {_why_not(error, path)}") from error
        try:
            self.header = read_header(path)
            self._choose(bands)
        except UserError:
            self.dataset.close()
            raise
        self.height, self.width, self.bands = self.header.height, self.header.width, len(self.indexes)
        self.dtype = dtype_of(self.header)

    def _choose(self, bands: Sequence[int] | None) -> None:
        header = self.header
        found = (self.dataset.height, self.dataset.width, self.dataset.count)
        if found != (header.height, header.width, header.samples):
            raise UserError(f"{self.path}: GDAL reads {found} where the file says otherwise; write it again")
        count = 3 if header.colors else header.samples
        usual = range(1, 4) if header.colors else [index + 1 for index in header.channels]
        self.indexes = list(usual if bands is None else bands)
        if not self.indexes or any(band not in range(1, count + 1) for band in self.indexes):
            raise UserError(f"{self.path}: has bands 1 to {count}, but {self.indexes} were requested")
        self._channels = [0] if header.colors else [band - 1 for band in self.indexes]
        hides = header.alpha is not None and header.alpha not in self._channels
        self._samples = [*self._channels, *([header.alpha] if hides else [])]

    @property
    def masked(self) -> bool:
        """Whether something in the file says where data is missing."""
        return self.header.masked

    @property
    def names(self) -> list[str]:
        """Descriptions of the bands, "" where one has none."""
        return (
            [""] * self.bands
            if self.header.colors
            else [self.header.metadata.names[i] for i in self._channels]
        )

    @property
    def place(self) -> Place:
        """Where the raster lies."""
        return place_in(self.dataset)

    def read_window(self, row: int, col: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Source.read_window`.

        Raises:
            UserError: the window cannot be read; the message names the file and the window.
        """
        rasterio = import_rasterio()
        # Not `gdal()`: warning filters belong to the process, and this runs in parallel with other threads.
        with rasterio.Env(GDAL_CACHEMAX=CACHE_MB):
            window = rasterio.windows.Window(col, row, width, height)
            internal = self.header.mask_page is not None
            try:
                stored = self.dataset.read([index + 1 for index in self._samples], window=window)
                mask = self.dataset.read_masks(1, window=window) > 0 if internal else None
            except gdal_errors() as error:
                raise UserError(
                    f"{self.path}: rows {row} to {row + height - 1}, columns {col} to {col + width - 1} cannot be read "
                    f"({first_line(error)}); if temporary, continue with --resume; else repair the file and start over"
                ) from error
        values = interpret(np.moveaxis(stored, 0, -1), mask, self.header, self._channels, self.path)
        pixels = values.pixels
        if self.header.colors:
            pixels = pixels[..., [index - 1 for index in self.indexes]]
        return (pixels if pixels.dtype == np.uint8 else pixels.astype(np.float32)), values.known()

    def fingerprint(self) -> Fingerprint:
        """What identifies the input: size, modification time, hash of the first 64 KiB; and the bands."""
        return {"input": file_fingerprint(self.path), "bands": self.indexes}

    def close(self) -> None:
        """Close the file."""
        self.dataset.close()


def file_fingerprint(path: Path) -> list[Any]:
    """What identifies a file without reading it all: size, modification time, hash of the first 64 KiB."""
    info = path.stat()
    with open(path, "rb") as file:
        return [info.st_size, info.st_mtime_ns, hashlib.sha256(file.read(65536)).hexdigest()]


def _why_not(error: Exception, path: Path) -> str:
    """Why GDAL cannot open a file."""
    try:
        return undecodable(error, read_header(path), "rasterio")
    except UserError:
        return f"is not a GeoTIFF that GDAL can read ({first_line(error)})"
