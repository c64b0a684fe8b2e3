"""TIFF images of any number of bands and kind of numbers, with what they say of pixels without data.

GeoTIFF is read by rasterio where it is installed (`pip install 'edgedistill[geo]'`), else by tifffile. Neither a
georeference nor a coordinate system is needed: training has no use for them.
"""

import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from deploy.errors import UserError
from deploy.images import TIFF_SUFFIXES, read_image

_NODATA_TAG = 42113
"""GDAL's tag of the number that means no data, as text."""


def read_bands(path: Path) -> np.ndarray:
    """An image file as H×W×C in the units of the file: `deploy.images.read_image`, but TIFF with all of its bands.

    Of a TIFF, bytes and 16-bit numbers without sign come as they are; all others as float32, and so does any file whose
    metadata name a number that means no data: NaN is in its place then.

    Raises:
        UserError: the file is missing or damaged, holds complex numbers, or bands of different sizes.
    """
    if path.suffix.lower() not in TIFF_SUFFIXES:
        return read_image(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    read = _by_rasterio if find_spec("rasterio") else _by_tifffile
    try:
        bands, nodata = read(path)
    except UserError:
        raise
    except Exception as error:  # damaged files raise all kinds in either library
        raise UserError(f"{path}: cannot be read as TIFF ({_first_line(error)})") from error
    if bands.dtype.kind not in "uif":
        raise UserError(f"{path}: pixels are {bands.dtype}; save them as integers or floating point")
    if bands.dtype in (np.uint8, np.uint16) and nodata is None:
        return bands
    pixels = bands.astype(np.float32)
    if nodata is not None:
        pixels[bands == nodata] = np.nan
    return pixels


def _by_rasterio(path: Path) -> tuple[np.ndarray, float | None]:
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as source:
            return source.read().transpose(1, 2, 0), source.nodata


def _by_tifffile(path: Path) -> tuple[np.ndarray, float | None]:
    import tifffile

    with tifffile.TiffFile(path) as file:
        sizes = {page.shape[:2] for page in file.pages if page.shape}  # pyright: ignore[reportAttributeAccessIssue]
        series = file.series[0]
        if len(file.series) > 1 and len(sizes) > 1 and not file.pages[1].is_reduced:  # pyright: ignore[reportAttributeAccessIssue]
            raise UserError(f"{path}: its bands differ in size ({', '.join(map(str, sorted(sizes)))})")
        bands = series.asarray()
        tag = file.pages[0].tags.get(_NODATA_TAG)  # pyright: ignore[reportAttributeAccessIssue]
    if bands.ndim == 2:
        bands = bands[..., None]
    elif not series.axes.endswith("S"):  # one page or plane a band
        bands = bands.transpose(1, 2, 0)
    return bands, float(tag.value) if tag else None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
