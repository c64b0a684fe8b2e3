"""Read whole TIFF images with any number of bands and any type of numbers, and mark their pixels without data.

Training and `edgedistill predict` use it; `deploy.raster.geo` reads larger files by windows, with the same results.

GeoTIFF is read by rasterio where it is installed (`pip install 'edgedistill[geo]'`), else by tifffile, which training
installs; without either, by Pillow, with its limits (`deploy.files.decoding`). Neither a georeference nor a coordinate
system is needed.
"""

import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from deploy.errors import UserError
from deploy.files.images import TIFF_SUFFIXES, read_image

_NODATA_TAG = 42113
"""GDAL's tag of the value that means no data, as text."""
_METADATA_TAG = 42112
"""GDAL's tag of its metadata, an XML text."""


def read_bands(path: Path) -> np.ndarray:
    """Read an image file in its own units: as `deploy.files.images.read_image` does, but all bands of a TIFF.

    Args:
        path: an image file.

    Returns:
        H×W×C. A TIFF of uint8 or uint16 keeps its type; all others become float32, and so does a file whose metadata
        name a no-data value, which is replaced by NaN. A pixel of uint8 counts as no data only where all of its bands
        have that value, as 0 is a color, too. Scale and offset of the metadata are applied, in float32, except to
        uint8.

    Raises:
        UserError: the file is missing or damaged, holds complex numbers, or bands of different sizes.
    """
    if path.suffix.lower() not in TIFF_SUFFIXES:
        return read_image(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    read = _reader()
    if read is None:  # on a device: Pillow reads uint8 of up to four bands, and refuses others with a message
        return read_image(path)
    try:
        bands, nodata, scales, offsets, _ = read(path)
    except UserError:
        raise
    except Exception as error:  # both libraries raise errors of any type for damaged files
        raise UserError(f"{path}: corrupt image, cannot be read as TIFF ({_first_line(error)})") from error
    if bands.dtype.kind not in "uif":
        raise UserError(f"{path}: pixels are {bands.dtype}; save them as integers or floating point")
    scaled = any(scale != 1 for scale in scales) or any(offsets)
    if nodata is None and (bands.dtype == np.uint8 or (bands.dtype == np.uint16 and not scaled)):
        return bands
    pixels = bands.astype(np.float32)
    if bands.dtype != np.uint8 and scaled:
        pixels = (bands * scales + offsets).astype(np.float32)
    if nodata is not None:
        missing = bands == nodata
        pixels[missing.all(axis=2) if bands.dtype == np.uint8 else missing] = np.nan
    return pixels


def band_names(path: Path) -> tuple[str, ...] | None:
    """Names of a TIFF's bands, such as VV and VH; None unless all bands have names that differ.

    Also None where neither library of `read_bands` is installed, or the file cannot be read.
    """
    read = _reader() if path.suffix.lower() in TIFF_SUFFIXES else None
    if read is None:
        return None
    try:
        names = read(path).names
    except Exception:  # `read_bands` reports what is wrong
        return None
    return tuple(names) if all(names) and len(set(names)) == len(names) else None


class _Content(NamedTuple):
    bands: np.ndarray
    """H×W×C as stored."""
    nodata: float | None
    scales: Sequence[float]
    offsets: Sequence[float]
    names: Sequence[str]
    """One per band; "" where it has none."""


def _reader() -> Callable[[Path], _Content] | None:
    return _by_rasterio if find_spec("rasterio") else _by_tifffile if find_spec("tifffile") else None


def _by_rasterio(path: Path) -> _Content:
    import rasterio  # optional dependency
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, driver="GTiff") as source:  # a VRT by that name reads other files
            names = [name or "" for name in source.descriptions]
            bands = source.read().transpose(1, 2, 0)
            return _Content(bands, source.nodata, source.scales, source.offsets, names)


def _by_tifffile(path: Path) -> _Content:
    import tifffile  # optional dependency

    with tifffile.TiffFile(path) as file:
        sizes = {page.shape[:2] for page in file.pages if page.shape}  # pyright: ignore[reportAttributeAccessIssue]
        series = file.series[0]
        if len(file.series) > 1 and len(sizes) > 1 and not file.pages[1].is_reduced:  # pyright: ignore[reportAttributeAccessIssue]
            raise UserError(f"{path}: its bands differ in size ({', '.join(map(str, sorted(sizes)))})")
        bands = series.asarray()
        tags = file.pages[0].tags  # pyright: ignore[reportAttributeAccessIssue]
        nodata, metadata = (
            tags[code].value if code in tags else None for code in (_NODATA_TAG, _METADATA_TAG)
        )
    if bands.ndim == 2:
        bands = bands[..., None]
    elif not series.axes.endswith("S"):  # one page or plane per band
        bands = bands.transpose(1, 2, 0)
    items = list(ElementTree.fromstring(metadata)) if metadata else []
    scales, offsets = (
        [float(text or default) for text in _by_band(items, role, bands.shape[2])]
        for role, default in (("scale", 1), ("offset", 0))
    )
    names = _by_band(items, "description", bands.shape[2])
    return _Content(bands, None if nodata is None else float(nodata), scales, offsets, names)


def _by_band(items: Sequence[ElementTree.Element], role: str, bands: int) -> list[str]:
    """Text of GDAL's metadata for each band in that role; "" where there is none."""
    found = {int(i.get("sample", 0)): i.text or "" for i in items if i.get("role") == role}
    return [found.get(band, "") for band in range(bands)]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
