"""GDAL by rasterio, an optional dependency: `pip install 'edgedistill[geo]'`."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from deploy.errors import UserError

CACHE_MB = 64
"""GDAL's cache of decoded blocks. By default it grows with the machine's memory."""


def import_rasterio() -> Any:
    """Import rasterio, an optional dependency.

    Raises:
        UserError: it cannot be imported.
    """
    try:
        import rasterio
    except (ImportError, OSError) as error:  # OSError: a library that it loads is missing
        raise UserError(f"GeoTIFFs need rasterio ({error}): pip install 'edgedistill[geo]'") from error
    return rasterio


def gdal_errors() -> tuple[type[Exception], ...]:
    """Exceptions of reading and writing: GDAL's own errors do not derive from rasterio's public base class."""
    import_rasterio()
    from rasterio._err import CPLE_BaseError  # optional dependency
    from rasterio.errors import RasterioError

    return RasterioError, CPLE_BaseError


@contextmanager
def gdal() -> Iterator[Any]:
    """rasterio with a bounded cache, in this thread, without warnings about rasters that are not georeferenced."""
    rasterio = import_rasterio()
    from rasterio.errors import NotGeoreferencedWarning  # optional dependency

    with warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=CACHE_MB):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield rasterio


def first_line(error: BaseException) -> str:
    """GDAL's message, which rasterio stores as the cause of its own "see previous exception"."""
    text = str(error.__cause__ or error)
    return (text.splitlines() or [type(error).__name__])[0]
