"""A bundle as one function of `xarray.DataArray`, for pipelines of rioxarray, odc-stac or stackstac.

    labels = edgedistill.raster(stack, "student.bundle")

Needs xarray and rioxarray (`pip install 'edgedistill[dask]'`). An array of Dask stays lazy: each chunk of the result
reads its pixels with those of the tiles that reach beyond its border, so chunks have no seams.
"""

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deploy.bundle.bundle_files import read_manifest
from deploy.bundle.manifest import Manifest
from deploy.errors import UserError
from deploy.pinned import pin
from deploy.raster.array_chunks import Task, predict_lazily, predict_now
from deploy.raster.array_input import nodata_of, rasters_of
from deploy.raster.predict import Options, check_fit
from deploy.raster.sources import ArraySource
from deploy.tasks.registry import require_classes
from deploy.tasks.segmentation.geotiff import NODATA, PROBABILITY_STEPS

if TYPE_CHECKING:
    import xarray

_TILES = 8
"""Tiles along the side of a chunk, unless the caller says otherwise."""


def predict_dataarray(
    data: "xarray.DataArray",
    bundle: str | Path,
    *,
    bands: Sequence[Hashable] | None = None,
    band_dim: Hashable = "band",
    options: Options | None = None,
    chunk: int | None = None,
    backend: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
) -> "xarray.DataArray":
    """Segment a raster as `deploy.raster.predict.predict_raster` does: the same labels for the same pixels.

    Args:
        data: its dimensions are rows and columns as rioxarray finds them, `band_dim` (unless the bundle reads one
            channel), and any others, such as time, along which each raster is predicted by itself. No data is what
            rioxarray says (`data.rio.nodata`, in uint8 where all bands have it), NaN and infinities.
        bundle: folder of a segmentation bundle; it must be there, under the same path, where a lazy result is computed.
        bands: the bands that are the bundle's channels, in their order, as the coordinate of `band_dim` has them, or
            numbered from 1 where there is none. None: those with the channels' names; without names all bands.
        band_dim: name of the dimension of the bands.
        options: with a dtype of probabilities, these are returned instead of labels. The limit of memory does not
            apply to lazy data.
        chunk: approximate side of the chunks of a lazy result in pixels; None: eight tiles. Small ones cost more.
        backend: as `deploy.load` takes it; "auto" chooses here, for all processes that compute.
        precision: as `deploy.load` takes it.
        threads: CPU threads of the engine; None: one for each chunk of a lazy result, else the backend's choice.

    Returns:
        Labels uint8, 255 where there is no data; or probabilities with a first dimension `class`, NaN or 255 where
        there is no data. Other dimensions, coordinates and coordinate system are those of `data`. Lazy if `data` is.

    Raises:
        UserError: a package is missing, or `data` does not fit the bundle. Where a lazy result is computed: the bundle
            is missing or another one there, or edgedistill's code is.
    """
    import_rioxarray()
    manifest, options = read_manifest(bundle), options or Options()
    require_classes(manifest, bundle, "edgedistill.raster")
    array, dims = rasters_of(data, manifest.input.channels, bands, band_dim)
    check_fit(manifest.input, ArraySource(np.empty((1, 1, array.shape[-1]), array.dtype)))
    lazy = hasattr(array, "dask")
    pinned = pin(Path(bundle), backend, precision, 1 if lazy and threads is None else threads)
    tile = (manifest.input.height, manifest.input.width)
    task = Task(pinned, options, nodata_of(data), tile, len(manifest.classes))
    side = chunk or _TILES * max(tile)
    result = _each(array, partial(predict_lazily, task, side) if lazy else partial(predict_now, task))
    return _described(result, data, dims, manifest, options)


def import_rioxarray() -> Any:
    """Import rioxarray, an optional dependency, which gives each `DataArray` the attribute `rio`.

    Raises:
        UserError: it cannot be imported.
    """
    try:
        import rioxarray
    except (ImportError, OSError) as error:
        raise UserError(
            f"edgedistill.raster needs xarray and rioxarray ({error}): pip install 'edgedistill[dask]'"
        ) from error
    return rioxarray


def _each(array: Any, predict: Callable[[Any], Any]) -> Any:
    """Predict each raster H×W×C of an array …×H×W×C; the results …×H×W, or K×…×H×W."""
    shape = array.shape[:-3]
    results = [predict(array[index]) for index in product(*map(range, shape))]
    if not shape:
        return results[0]
    stacked = np.stack(results, axis=-3)  # of arrays of Dask it is Dask's own
    return stacked.reshape(*stacked.shape[:-3], *shape, *stacked.shape[-2:])


def _described(
    result: Any, data: "xarray.DataArray", dims: list[Hashable], manifest: Manifest, options: Options
) -> "xarray.DataArray":
    """The result with the coordinates of the data, and what its values mean."""
    import xarray  # optional dependency

    coords = {name: one for name, one in data.coords.items() if set(one.dims) <= set(dims)}
    names = [one.name for one in manifest.classes]
    if options.probabilities is None:
        found = xarray.DataArray(result, coords, dims, "labels")
        # as the CF conventions say it of classes
        found.attrs["flag_values"] = np.arange(len(names), dtype=np.uint8)
        found.attrs["flag_meanings"] = " ".join("_".join(one.split()) for one in names)
    else:
        found = xarray.DataArray(result, coords | {"class": names}, ["class", *dims], "probabilities")
        if options.probabilities == "uint8":
            found.attrs |= {"scale_factor": 1 / PROBABILITY_STEPS, "add_offset": 0.0}
    y, x = dims[-2:]
    found.rio.set_spatial_dims(x, y, inplace=True)
    if data.rio.grid_mapping in coords:
        found.rio.write_grid_mapping(data.rio.grid_mapping, inplace=True)
    elif data.rio.crs is not None:  # from an attribute
        found.rio.write_crs(data.rio.crs, inplace=True)
    return found.rio.write_nodata(np.nan if options.probabilities == "float32" else NODATA, inplace=True)
