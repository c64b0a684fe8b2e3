"""Rasters larger than memory: tiles with blended seams, streamed from a `Source` into a `Sink`.

    from deploy.raster import ArraySink, ArraySource, Options, predict_raster

`deploy.raster.geo` reads GeoTIFFs and `deploy.tasks.segmentation.geotiff` writes them
(`pip install 'edgedistill[geo]'`); `edgedistill predict-raster` does both.
"""

from deploy.raster.predict import Options, Summary, predict_raster
from deploy.raster.sources import ArraySink, ArraySource, Sink, Source
from deploy.tasks.segmentation.geotiff import NODATA

__all__ = ["NODATA", "ArraySink", "ArraySource", "Options", "Sink", "Source", "Summary", "predict_raster"]
