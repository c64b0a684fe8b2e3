"""TIFF files with any number of bands and any dtype, read by rasterio, tifffile or Pillow."""

import numpy as np
import pytest
import tifffile

import deploy
from deploy.cli import main
from deploy.errors import UserError
from deploy.files import tiff
from deploy.files.gdal import gdal
from deploy.files.images import read_mask
from deploy.files.tiff import band_names, read_bands
from deploy.raster.geo import GeoSource
from tests.deploy.files.tiff_files import bands, write_named, write_tiff
from tests.deploy.tiny import make_bundle, make_image


@pytest.mark.parametrize("planar", [True, False])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32", "float64"])
def test_any_bands_and_numbers(tiff_library, tmp_path, dtype, planar):
    array = bands(5, dtype)
    write_tiff(tmp_path / "a.tif", array, planar=planar)
    read = read_bands(tmp_path / "a.tif")
    assert read.dtype == (dtype if dtype in ("uint8", "uint16") else "float32")
    np.testing.assert_array_equal(read, array.astype(read.dtype))


@pytest.mark.parametrize(("dtype", "nodata"), [("int16", -32768), ("uint16", 3), ("float32", -9999.0)])
def test_the_number_that_means_no_data_becomes_nan(tiff_library, tmp_path, dtype, nodata):
    array = bands(2, dtype)
    array[1, 2, 1] = nodata
    write_tiff(tmp_path / "a.tif", array, nodata)
    read = read_bands(tmp_path / "a.tif")
    np.testing.assert_array_equal(np.isnan(read), array == nodata)
    assert np.isnan(read[1, 2, 1])
    np.testing.assert_array_equal(read[~np.isnan(read)], array[array != nodata])


def test_a_byte_is_none_where_all_bands_are(tiff_library, tmp_path):
    array = np.full((6, 8, 2), 9, np.uint8)
    array[1, 2], array[3, 4, 0] = 0, 0
    write_tiff(tmp_path / "a.tif", array, 0)
    read = read_bands(tmp_path / "a.tif")
    np.testing.assert_array_equal(np.isnan(read).all(axis=2), (array == 0).all(axis=2))
    assert np.isnan(read).sum() == 2


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("nodata", [None, 7])
@pytest.mark.parametrize("scaled", [True, False])
def test_the_same_numbers_as_read_by_windows(tiff_library, tmp_path, dtype, nodata, scaled):
    array = bands(3, dtype, (5, 7))
    array[2, 3] = 7
    with (
        gdal() as rasterio,
        rasterio.open(
            tmp_path / "a.tif", "w", "GTiff", 7, 5, 3, dtype=dtype, nodata=nodata, photometric="minisblack"
        ) as file,
    ):
        file.write(array.transpose(2, 0, 1))
        if scaled:
            file.scales, file.offsets = (0.5, 1, 2), (0, 3, -1)
    pixels, valid = GeoSource(tmp_path / "a.tif").read_window(0, 0, 5, 7)
    read = read_bands(tmp_path / "a.tif")
    np.testing.assert_array_equal(np.isnan(read.astype(float)).any(axis=2), ~valid)
    np.testing.assert_array_equal(read[valid], pixels[valid])


def test_predict_reads_what_training_read(tmp_path):
    make_bundle(tmp_path / "bundle", "sar")
    image = make_image("sar")
    image[:3] = -9999
    write_tiff(tmp_path / "images" / "a.tif", image, -9999)
    out = tmp_path / "out"
    assert main(["predict", str(tmp_path / "bundle"), str(tmp_path / "images"), "--out", str(out)]) == 0
    labels = read_mask(out / "a_mask.png")
    assert (labels[:3] == 255).all()
    image[:3] = np.nan
    np.testing.assert_array_equal(labels, deploy.load(tmp_path / "bundle")(image).labels)


def test_a_device_without_either_library(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff, "find_spec", lambda name: None)
    write_tiff(tmp_path / "a.tif", bands(1, "uint8"))
    np.testing.assert_array_equal(read_bands(tmp_path / "a.tif"), bands(1, "uint8"))
    write_tiff(tmp_path / "b.tif", bands(2, "float32"))
    with pytest.raises(UserError, match=r"b\.tif: .*save .* as \.npy"):
        read_bands(tmp_path / "b.tif")


def test_one_band_and_one_pixel(tiff_library, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.array([[7]], np.int16), metadata=None)
    assert read_bands(tmp_path / "a.tif").tolist() == [[[7.0]]]


def test_a_damaged_file_is_named(tiff_library, tmp_path):
    write_tiff(tmp_path / "a.tif", bands(2, size=(60, 60)))
    whole = (tmp_path / "a.tif").read_bytes()
    for kept in (0, 5, len(whole) // 2):
        (tmp_path / "cut.tif").write_bytes(whole[:kept])
        with pytest.raises(UserError, match=r"cut\.tif: corrupt image, cannot be read as TIFF"):
            read_bands(tmp_path / "cut.tif")
    with pytest.raises(UserError, match=r"gone\.tif: no such file"):
        read_bands(tmp_path / "gone.tif")


def test_bands_that_differ_in_size(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff, "find_spec", lambda name: name == "tifffile" or None)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(np.zeros((6, 8), np.float32))
        writer.write(np.zeros((3, 4), np.float32))
    with pytest.raises(UserError, match=r"a\.tif: its bands differ in size"):
        read_bands(tmp_path / "a.tif")


def test_bands_keep_the_names_of_the_file(tiff_library, tmp_path):
    write_named(tmp_path / "a.tif", ("VV", "VH"))
    assert band_names(tmp_path / "a.tif") == ("VV", "VH")
    write_named(tmp_path / "b.tif", ("VV", ""))
    write_named(tmp_path / "c.tif", ("VV", "VV"))
    (tmp_path / "d.tif").write_bytes(b"II")
    assert {band_names(tmp_path / f"{name}.tif") for name in "bcd"} == {None}


@pytest.mark.parametrize("read", [read_bands, GeoSource])
def test_a_virtual_raster_called_tif_is_refused(tmp_path, read):
    """GDAL tells formats by content, and a VRT reads any file of the machine."""
    rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed (pip install -e '.[geo]')")
    write_tiff(tmp_path / "private.tif", bands(1, "uint8"))
    height, width = bands(1, "uint8").shape[:2]
    (tmp_path / "a.tif").write_text(
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}"><GeoTransform>0, 1, 0, 0, 0, -1</GeoTransform>'
        '<VRTRasterBand dataType="Byte" band="1">'
        f'<SimpleSource><SourceFilename relativeToVRT="1">private.tif</SourceFilename><SourceBand>1</SourceBand>'
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    with rasterio.open(tmp_path / "a.tif") as opened:
        assert opened.driver == "VRT", "the file is one that GDAL would open"
    with pytest.raises(UserError, match=r"a\.tif"):
        read(tmp_path / "a.tif")
