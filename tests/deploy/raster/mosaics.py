"""A raster as a whole, and cut into GeoTIFFs that overlap, with VRTs as `gdalbuildvrt` writes them."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tests.deploy.raster.networks import write_tif

X, Y, PIXEL = 500_000, 5_000_000, 10


def place(row: int, col: int):
    """The transform of a raster whose first pixel is at this row and column of the whole."""
    import rasterio

    return rasterio.Affine(PIXEL, 0, X + PIXEL * col, 0, -PIXEL, Y - PIXEL * row)


def cut_up(
    folder: Path, image: np.ndarray, rows: Iterable[slice], columns: Iterable[slice], **profile: object
) -> list[Path]:
    """Write the parts of an image as GeoTIFFs `part-i-j.tif` where they belong."""
    folder.mkdir(exist_ok=True)
    columns = list(columns)
    return [
        write_tif(
            folder / f"part-{i}-{j}.tif",
            image[down, across],
            transform=place(down.start, across.start),
            **profile,
        )
        for i, down in enumerate(rows)
        for j, across in enumerate(columns)
    ]


def box(name: str, row: int, col: int, height: int, width: int) -> str:
    return f'<{name} xOff="{col}" yOff="{row}" xSize="{width}" ySize="{height}" />'


def vrt_source(
    file: Path, band: int, source: tuple[int, int, int, int], target: tuple[int, ...], more=""
) -> str:
    """A source of a band; its file lies beside the VRT or is given in full."""
    relative = int(not file.is_absolute())
    return (
        f'<ComplexSource resampling="nearest"><SourceFilename relativeToVRT="{relative}">{file}</SourceFilename>'
        f"<SourceBand>{band}</SourceBand>{box('SrcRect', *source)}{box('DstRect', *target)}{more}</ComplexSource>"
    )


def write_vrt(path: Path, size: tuple[int, int], bands: list[list[str]], more: str = "") -> Path:
    """Write a VRT of height and width, with the sources of each band."""
    from rasterio.crs import CRS

    each = "".join(
        f'<VRTRasterBand dataType="Float32" band="{i}">{more}{"".join(sources)}</VRTRasterBand>'
        for i, sources in enumerate(bands, 1)
    )
    path.write_text(
        f'<VRTDataset rasterXSize="{size[1]}" rasterYSize="{size[0]}">'
        f'<SRS dataAxisToSRSAxisMapping="1,2">{CRS.from_epsg(32632).to_wkt().replace(chr(34), "&quot;")}</SRS>'
        f"<GeoTransform>{X}, {PIXEL}, 0, {Y}, 0, {-PIXEL}</GeoTransform>{each}</VRTDataset>",
        encoding="utf-8",
    )
    return path
