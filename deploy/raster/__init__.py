"""Rasters larger than memory: tiles with blended seams, streamed from a `Source` into a `Sink`.

    from deploy.raster import ArraySink, ArraySource, Options, predict_raster

`deploy.raster.geo` and `geotiff` read and write GeoTIFFs (`pip install 'edgedistill[geo]'`), as does `edgedistill
predict-raster`.
"""

from deploy.raster.predict import Options, Summary, predict_raster
from deploy.raster.sources import NODATA, ArraySink, ArraySource, Sink, Source

__all__ = ["NODATA", "ArraySink", "ArraySource", "Options", "Sink", "Source", "Summary", "predict_raster"]
