"""Where an image lies on the ground."""

import struct
from pathlib import Path
from typing import Any, NamedTuple

from deploy.files.tiff_pages import read_pages

_CRS_KEYS = {2048, 3072}
"""Of the coordinates of a GeoTIFF: geodetic and projected (OGC 19-008r4)."""


class Place(NamedTuple):
    """Where a raster lies on the ground, as rasterio has it."""

    crs: Any
    """`rasterio.crs.CRS`, or None."""
    transform: Any
    """`affine.Affine` from pixels to coordinates; the identity if there is none."""
    points: tuple[Any, ...] = ()
    """Ground control points, which replace the transform in rasters that are not rectified."""
    points_crs: Any = None

    @property
    def is_rectified(self) -> bool:
        """Whether coordinates follow from pixels by the transform."""
        return self.crs is not None and not self.transform.is_identity


def place_in(dataset: Any) -> Place:
    """The place of an open `rasterio.DatasetReader`."""
    points, crs = dataset.gcps
    return Place(dataset.crs, dataset.transform, tuple(points), crs)


def has_crs(path: Path) -> bool:
    """Whether an image is a GeoTIFF that states its coordinate system; found out without rasterio."""
    try:
        with open(path, "rb") as file:
            page = read_pages(file, path.stat().st_size)[0]
    except (OSError, ValueError, struct.error):
        return False
    return not _CRS_KEYS.isdisjoint(page.get("geo_keys", ())[4::4])
