"""GeoTIFF files with everything that tags can say, written by rasterio."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def write_geotiff(
    path: Path,
    array: np.ndarray,
    *,
    nodata: float | None = None,
    scales: Sequence[float] = (),
    offsets: Sequence[float] = (),
    mask: np.ndarray | None = None,
    tags: Mapping[str, str] | None = None,
    overviews: bool = False,
    **profile: Any,
) -> Path:
    """Write H×W×C; `mask` is bool H×W, True where there is data."""
    rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed (pip install -e '.[geo]')")
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width, bands = array.shape
    place = rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000)
    profile = {"crs": "EPSG:32633", "transform": place, "nodata": nodata, **profile}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", "GTiff", width, height, bands, dtype=array.dtype, **profile) as file,
    ):
        file.write(array.transpose(2, 0, 1))
        if scales:
            file.scales, file.offsets = scales, offsets
        if mask is not None:
            file.write_mask(mask)
        file.update_tags(**(tags or {}))
    if overviews:
        with rasterio.open(path, "r+") as file:
            file.build_overviews([2])
    return path
