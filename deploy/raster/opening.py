"""A raster by its path: a GeoTIFF, or a mosaic of GeoTIFFs that a folder holds or a VRT describes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import UserError
from deploy.files.images import TIFF_SUFFIXES
from deploy.raster.geo import GeoSource
from deploy.raster.mosaic import Mosaic, mosaic_of
from deploy.raster.vrt import read_vrt


@dataclass(frozen=True)
class GeoFile:
    """One GeoTIFF, as `Mosaic` without open files."""

    path: Path
    bands: tuple[int, ...] | None

    def files(self) -> list[Path]:
        """The file."""
        return [self.path]

    def open(self) -> GeoSource:
        """Open it."""
        return GeoSource(self.path, self.bands)

    def within(self, row: int, col: int, height: int, width: int) -> "GeoFile":
        """Itself: it is needed for any window."""
        del row, col, height, width
        return self


def find_raster(path: Path, bands: Sequence[int] | None) -> GeoFile | Mosaic:
    """What is at a path, to be opened here or in another process.

    Args:
        path: a GeoTIFF, a folder of GeoTIFFs on one grid, or a VRT.
        bands: bands to read, numbered from 1; None: all but alpha.

    Raises:
        UserError: the folder holds no GeoTIFF, or its files do not make one raster (`deploy.raster.mosaic.mosaic_of`);
            the VRT cannot be read (`deploy.raster.vrt.read_vrt`).
    """
    if path.is_dir():
        return mosaic_of(path, list_rasters(path), bands)
    if path.suffix.lower() == ".vrt":
        return read_vrt(path, bands)
    return GeoFile(path, None if bands is None else tuple(bands))


def list_rasters(folder: Path) -> list[Path]:
    """The GeoTIFFs directly inside a folder, sorted by name, without hidden files.

    Raises:
        UserError: there is none.
    """
    found = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in TIFF_SUFFIXES and not path.name.startswith(".")
    )
    if not found:
        raise UserError(f"{folder}: holds no GeoTIFF; looked for {', '.join(TIFF_SUFFIXES)}")
    return found
