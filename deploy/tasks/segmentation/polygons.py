"""Outlines of the classes in a label map, as GeoJSON (RFC 7946) in pixels. They need rasterio: `edgedistill[geo]`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from deploy.bundle.manifest import ClassInfo
from deploy.errors import UserError


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


def collection(labels: np.ndarray, classes: Sequence[ClassInfo]) -> dict[str, Any]:
    """`features` as a GeoJSON FeatureCollection."""
    return {"type": "FeatureCollection", "features": features(labels, classes)}
