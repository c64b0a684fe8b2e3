"""TIFF files with many bands, written by tifffile or rasterio."""

from pathlib import Path

import numpy as np
import tifffile

from deploy.files.gdal import gdal


def bands(count: int = 2, dtype: str = "float32", size: tuple[int, int] = (6, 8)) -> np.ndarray:
    """An array H×W×C of distinct numbers."""
    return (np.arange(count * size[0] * size[1]).reshape(*size, count) - 20).astype(dtype)


def write_tiff(path: Path, array: np.ndarray, nodata: float | None = None, planar: bool = True) -> None:
    """Write H×W×C without a georeference, by default each band in a plane of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tags = [] if nodata is None else [(42113, "s", 0, str(nodata), True)]
    if array.shape[2] == 1:
        tifffile.imwrite(path, array[..., 0], photometric="minisblack", extratags=tags, metadata=None)
        return
    data = array.transpose(2, 0, 1) if planar else array
    config = "separate" if planar else "contig"
    tifffile.imwrite(path, data, photometric="minisblack", planarconfig=config, extratags=tags, metadata=None)


def write_named(path: Path, names: tuple[str, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "height": 8, "width": 8, "count": len(names), "dtype": "float32"}
    with gdal() as rasterio, rasterio.open(path, "w", **profile) as file:
        file.write(bands(len(names), size=(8, 8)).transpose(2, 0, 1))
        for band, name in enumerate(names, 1):
            file.set_band_description(band, name)
