"""Where an image lies on the ground."""

from typing import Any, NamedTuple


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
