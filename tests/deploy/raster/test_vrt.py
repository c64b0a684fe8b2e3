"""VRTs as `gdalbuildvrt` writes them: mosaics, bands from separate files; and what has another meaning is refused."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from deploy.errors import UserError
from deploy.raster.geo import GeoSource
from deploy.raster.opening import find_raster
from tests.deploy.raster.mosaics import cut_up, vrt_source, write_vrt
from tests.deploy.raster.networks import sar, write_tif, write_tif_of_points

pytest.importorskip("rasterio", reason="rasterio is not installed here (pip install -e '.[geo]')")

IMAGE = sar(60, 90)


def read(path: Path, bands=None) -> tuple[np.ndarray, np.ndarray, object]:
    with closing(find_raster(path, bands).open()) as source:
        return *source.read_window(0, 0, source.height, source.width), source.place


def two_files(folder: Path, more="", **profile) -> list[list[str]]:
    """The sources of both bands of a VRT of two files; the second one overlaps the first."""
    cut_up(folder, IMAGE, [slice(0, 60)], [slice(0, 50), slice(40, 90)], **profile)
    return [
        [
            vrt_source(Path("part-0-0.tif"), band, (0, 0, 60, 50), (0, 0, 60, 50), more),
            vrt_source(Path("part-0-1.tif"), band, (0, 0, 60, 50), (0, 40, 60, 50), more),
        ]
        for band in (1, 2)
    ]


def test_a_mosaic(tmp_path):
    path = write_vrt(tmp_path / "all.vrt", (60, 90), two_files(tmp_path))
    pixels, known, place = read(path)
    np.testing.assert_array_equal(pixels, IMAGE)
    assert known.all()
    write_tif(tmp_path / "whole.tif", IMAGE)
    with closing(GeoSource(tmp_path / "whole.tif")) as whole:
        assert place == whole.place
    np.testing.assert_array_equal(read(path, [2])[0], IMAGE[..., 1:])


def test_bands_from_separate_files_and_parts_of_files(tmp_path):
    first = write_tif(tmp_path / "vv.tif", IMAGE[..., :1], nodata=-1)
    second = write_tif(tmp_path / "vh.tif", np.where(IMAGE[..., 1:] < -20, -1, IMAGE[..., 1:]), nodata=-1)
    bands = [[vrt_source(one, 1, (10, 20, 30, 40), (0, 0, 30, 40))] for one in (first, second)]
    path = write_vrt(tmp_path / "stack.vrt", (30, 40), bands, more="<NoDataValue>-1</NoDataValue>")
    pixels, known, _ = read(path)
    wanted = IMAGE[10:40, 20:60]
    np.testing.assert_array_equal(known, wanted[..., 1] >= -20)
    np.testing.assert_array_equal(pixels[known], wanted[known])


def test_what_gdal_itself_writes(tmp_path):
    import rasterio.shutil

    write_tif(tmp_path / "whole.tif", IMAGE, nodata=-9999)
    rasterio.shutil.copy(tmp_path / "whole.tif", tmp_path / "whole.vrt", driver="VRT")
    np.testing.assert_array_equal(read(tmp_path / "whole.vrt")[0], IMAGE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda text: text.replace("<NODATA>-5</NODATA>", "<NODATA>0</NODATA>"),
            "its NODATA is 0, that of part-0-0.tif -5",
        ),
        (
            lambda text: text.replace("<NODATA>", "<ScaleRatio>2</ScaleRatio><NODATA>"),
            "a source has ScaleRatio",
        ),
        (
            lambda text: text.replace('ySize="60" /><NODATA>', 'ySize="30" /><NODATA>', 1),
            "resamples part-0-0.tif",
        ),
        (lambda text: text.replace('xOff="40"', 'xOff="40.5"'), r"places a file between pixels \(40.5\)"),
        (lambda text: text.replace('xOff="40"', 'xOff="60"'), "reaches beyond it"),
        (
            lambda text: text.replace("part-0-1.tif", "none.tif"),
            r"none\.tif: is named in .*all\.vrt, but there is no",
        ),
        (lambda text: text.replace("<SourceBand>2", "<SourceBand>7"), "part-0-0.tif has no band 7"),
        (
            lambda text: text.replace('band="1"', 'band="1" subClass="VRTDerivedRasterBand"'),
            "VRTDerivedRasterBand",
        ),
        (
            lambda text: text.replace("<VRTDataset", '<VRTDataset subClass="VRTWarpedDataset"'),
            "computes pixels",
        ),
        (lambda text: text.replace("</VRTDataset>", "<MaskBand/></VRTDataset>"), "has a mask band"),
        (lambda text: text.replace("</VRTDataset>", "<Group/></VRTDataset>"), "has Group; write it as"),
        (lambda text: "<!DOCTYPE x [<!ENTITY a 'a'>]>" + text, "is not plain XML"),
        (lambda text: text[:300], "is damaged"),
        (lambda text: text.replace("500000, 10", "500000"), "its GeoTransform has 5 numbers"),
    ],
)
def test_what_a_vrt_may_not_say(tmp_path, change, message):
    bands = two_files(tmp_path, "<NODATA>-5</NODATA>", nodata=-5)
    path = write_vrt(tmp_path / "all.vrt", (60, 90), bands)
    np.testing.assert_array_equal(read(path)[0], IMAGE)
    path.write_text(change(path.read_text()))
    with pytest.raises(UserError, match=message) as caught:
        find_raster(path, None)
    assert "\n" not in str(caught.value)


def test_ground_control_points_are_refused_and_not_lost(tmp_path):
    import rasterio.shutil

    write_tif_of_points(tmp_path / "whole.tif", IMAGE)
    rasterio.shutil.copy(tmp_path / "whole.tif", tmp_path / "whole.vrt", driver="VRT")
    with pytest.raises(UserError, match=r"whole\.vrt: has ground control points; write it as a GeoTIFF"):
        find_raster(tmp_path / "whole.vrt", None)


def test_bands_that_it_does_not_have(tmp_path):
    path = write_vrt(tmp_path / "all.vrt", (60, 90), two_files(tmp_path))
    with pytest.raises(UserError, match=r"has bands 1 to 2, but \[3\] were requested"):
        find_raster(path, [3])
