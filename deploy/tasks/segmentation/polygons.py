"""Outlines of the classes in a label map, as GeoJSON (RFC 7946). They need rasterio: `edgedistill[geo]`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deploy.bundle.manifest import ClassInfo
from deploy.errors import UserError
from deploy.files.decoding import quiet
from deploy.files.images import TIFF_SUFFIXES
from deploy.files.place import Place, place_in

WGS84 = "EPSG:4326"
"""The only coordinates of GeoJSON (RFC 7946, section 4): longitude and latitude."""


def place_of(path: Path | None) -> Place | None:
    """The place of a GeoTIFF; None of other images, and where rasterio is not installed."""
    if path is None or path.suffix.lower() not in TIFF_SUFFIXES:
        return None
    try:
        import rasterio  # optional dependency
        from rasterio.errors import RasterioIOError
    except ImportError:
        return None
    try:
        with quiet():  # it warns of files without a georeference
            file = rasterio.open(path, driver="GTiff")
    except RasterioIOError:  # another image that is called .tif
        return None
    with file:
        place = place_in(file)
    return place if place.is_rectified or place.points else None


def features(labels: np.ndarray, classes: Sequence[ClassInfo]) -> list[dict[str, Any]]:
    """A feature for each connected region (4-neighborhood) of each class.

    Its polygon runs along the edges of the pixels, x to the right and y down from the upper left corner of the image,
    so its area is the number of pixels; further rings are holes.

    Args:
        labels: class ids uint8 H×W; other ids have no region.
        classes: meaning of the ids.

    Raises:
        UserError: rasterio is not installed.
    """
    try:
        from rasterio import features as rasterio_features
    except ImportError as error:
        raise UserError(f"polygons need rasterio ({error}): pip install 'edgedistill[geo]'") from error
    shapes = rasterio_features.shapes(labels, mask=labels < len(classes))
    return [
        {
            "type": "Feature",
            "properties": {"class": classes[int(value)].name, "id": int(value)},
            "geometry": geometry,
        }
        for geometry, value in shapes
    ]


def collection(
    labels: np.ndarray, classes: Sequence[ClassInfo], source: Path | None = None
) -> dict[str, Any]:
    """`features` as a GeoJSON FeatureCollection: in longitude and latitude if the image is a GeoTIFF, else in pixels.

    Args:
        labels: class ids uint8 H×W; other ids have no region.
        classes: meaning of the ids.
        source: the file of the image.

    Raises:
        UserError: rasterio is not installed, or the image has a place that cannot be given as longitude and latitude.
    """
    found = features(labels, classes)
    place = place_of(source)
    if place is not None:
        for one in found:
            one["geometry"] = _on_the_ground(one["geometry"], place, source)
    return {"type": "FeatureCollection", "features": found}


def _on_the_ground(geometry: dict[str, Any], place: Place, source: Path | None) -> dict[str, Any]:
    """A polygon in pixels as one in longitude and latitude."""
    from rasterio.warp import transform_geom  # optional dependency

    if not place.is_rectified:
        raise UserError(
            f"{source}: has ground control points only; rectify it first (gdalwarp), or save no geojson"
        )
    a, b, c, d, e, f = place.transform[:6]
    rings = [[(a * x + b * y + c, d * x + e * y + f) for x, y in ring] for ring in geometry["coordinates"]]
    try:
        return transform_geom(place.crs, WGS84, {"type": "Polygon", "coordinates": rings})
    except Exception as error:  # GDAL's own errors do not derive from rasterio's public base class
        raise UserError(
            f"{source}: its coordinates have no longitude and latitude ({error}); save no geojson"
        ) from error
