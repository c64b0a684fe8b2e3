"""What an `xarray.DataArray` says of itself: dimensions, bands, units, no data. Wrong order of bands is refused."""

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

from deploy.errors import UserError

if TYPE_CHECKING:
    import xarray

_SCALING = {"scale_factor": 1, "add_offset": 0, "scales": None, "offsets": None}
"""Attributes of values that are not in their units yet, and what they are where that means nothing."""


def rasters_of(
    data: "xarray.DataArray", channels: Sequence[str], bands: Sequence[Hashable] | None, dim: Hashable
) -> tuple[Any, list[Hashable]]:
    """The values of the data for a bundle.

    Args:
        data: see `deploy.raster.dataarray.predict_dataarray`.
        channels: names of the bundle's channels.
        bands: the bands that are these, or None.
        dim: dimension of the bands.

    Returns:
        An array …×H×W×C as `data` holds it, of numpy or Dask; and the dimensions before C.

    Raises:
        UserError: dimensions or bands are missing, scale or offset is still to be applied, or there are no values.
    """
    y, x = spatial_dims(data)
    check_units(data)
    planes = channels_of(data, channels, bands, dim)
    dims = [*(one for one in planes.dims if one not in (y, x, dim)), y, x]
    array = planes.transpose(*dims, dim).data
    if array.size == 0:
        raise UserError(f"the data are empty: {dict(data.sizes)}")
    return array, dims


def spatial_dims(data: "xarray.DataArray") -> tuple[Hashable, Hashable]:
    """The dimensions of rows and columns.

    Raises:
        UserError: it is no `DataArray`, or rioxarray finds no such dimensions.
    """
    from rioxarray.exceptions import MissingSpatialDimensionError  # optional dependency

    if not hasattr(data, "rio") or hasattr(data, "data_vars"):
        raise UserError(
            f"edgedistill.raster takes a DataArray, not a {type(data).__name__}; of a Dataset: "
            'dataset[["VV", "VH"]].to_dataarray("band")'
        )
    try:
        return data.rio.y_dim, data.rio.x_dim
    except MissingSpatialDimensionError as error:
        raise UserError(
            f"the data have the dimensions {_listed(data.dims)}, but none is known to be rows or columns; rename them "
            "to y and x"
        ) from error


def nodata_of(data: "xarray.DataArray") -> float | None:
    """The value of pixels without data."""
    value = data.rio.nodata
    return None if value is None else float(value)


def check_units(data: "xarray.DataArray") -> None:
    """Check that no scale or offset is still to be applied.

    Raises:
        UserError: there is one.
    """
    for name, nothing in _SCALING.items():
        value = data.attrs.get(name)
        if value is not None and value != nothing:
            raise UserError(
                f"the data have the attribute {name} ({value}), so their values are not in their units yet; open them "
                "with mask_and_scale=True, or apply it and remove the attribute"
            )


def channels_of(
    data: "xarray.DataArray", channels: Sequence[str], bands: Sequence[Hashable] | None, dim: Hashable
) -> "xarray.DataArray":
    """The data with the bands that are the channels of a bundle, in their order; arguments as `rasters_of`.

    Raises:
        UserError: there is no such dimension or band, their number is another one, or their names leave the order open.
    """
    if dim not in data.dims:
        if len(channels) == 1:
            return data.drop_vars([dim], errors="ignore").expand_dims(dim)
        raise UserError(
            f"the data have the dimensions {_listed(data.dims)}; name that of the bands by band_dim= (now {dim!r})"
        )
    chosen = _chosen(data, channels, bands, dim)
    if len(chosen) != len(channels):
        raise UserError(
            f"the data have {len(chosen)} band(s), the bundle wants {len(channels)} ({_listed(channels)}); choose "
            "them, in this order, by bands="
        )
    return data.isel({dim: chosen})


def _chosen(
    data: "xarray.DataArray", channels: Sequence[str], bands: Sequence[Hashable] | None, dim: Hashable
) -> list[int]:
    """Positions of the bands."""
    count = data.sizes[dim]
    if bands is not None:
        there = data[dim].values.tolist() if dim in data.coords else list(range(1, count + 1))
        return _positions(bands, there)
    named = dim in data.coords and data[dim].dtype.kind in "OUT"
    names = [str(one) for one in data[dim].values] if named else _descriptions(data, count)
    if set(channels) <= set(names):
        return _positions(channels, names)
    if named:
        raise UserError(
            f"the bands are named {_listed(names)}, the bundle wants {_listed(channels)}; give them, in this order, "
            "by bands="
        )
    return list(range(count))


def _descriptions(data: "xarray.DataArray", count: int) -> list[str]:
    """The names of bands that rioxarray found in a file; [] without them."""
    found = data.attrs.get("long_name")
    return [str(one) for one in found] if isinstance(found, list | tuple) and len(found) == count else []


def _positions(wanted: Sequence[Any], there: list[Any]) -> list[int]:
    for one in wanted:
        if there.count(one) != 1:
            what = "is several times" if one in there else "is not"
            raise UserError(f"band {one} {what} among the bands {_listed(there)}")
    return [there.index(one) for one in wanted]


def _listed(names: Sequence[Any]) -> str:
    return ", ".join(map(str, names))
