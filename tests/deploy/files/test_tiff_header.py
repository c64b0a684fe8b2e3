"""What a TIFF says before a pixel is decoded; and what leaves its meaning open, is refused in one line."""

import struct

import numpy as np
import pytest
import tifffile
from PIL import Image

from deploy.errors import UserError
from deploy.files import tiff
from deploy.files.images import read_image, read_mask
from deploy.files.tiff_header import read_header
from deploy.raster.geo import GeoSource
from tests.deploy.files.geotiffs import write_geotiff
from tests.deploy.files.pictures import IDS, RGB, refusal
from tests.deploy.raw_images import make_tiff

GRAY = RGB[..., :1]


def pages(path, first=(6, 8), second=(6, 8), **options):
    with tifffile.TiffWriter(path) as writer:
        for size in (first, second):
            writer.write(np.zeros(size, np.float32), photometric="minisblack", metadata=None, **options)


def band_last_by_default(path):
    """`tifffile.imwrite` of H×W×2 makes H pages of W×2 pixels."""
    tifffile.imwrite(path, np.zeros((20, 30, 2), np.float32))


def band_first_by_default(path):
    tifffile.imwrite(path, np.zeros((2, 20, 30), np.float32))


def a_batch(path):
    tifffile.imwrite(path, np.zeros((2, 20, 30, 3), np.uint8), photometric="rgb")


def a_volume(path):
    tifffile.imwrite(
        path, np.zeros((4, 32, 32), np.uint8), photometric="minisblack", volumetric=True, tile=(4, 32, 32)
    )


def complex_numbers(path):
    tifffile.imwrite(path, np.zeros((20, 30), np.complex64), photometric="minisblack", metadata=None)


def gdal_tag(code, text):
    def write(path):
        tags = [(code, "s", 0, text, True)]
        tifffile.imwrite(path, RGB[..., 0], photometric="minisblack", extratags=tags, metadata=None)

    return write


def scale(text):
    item = f'<GDALMetadata><Item name="SCALE" sample="0" role="scale">{text}</Item></GDALMetadata>'
    return gdal_tag(42112, item)


def fourth_band_unknown(path):
    extra, unknown = (struct.pack("<HH", tag, 4) for tag in (338, 65000))
    path.write_bytes(make_tiff(np.dstack([RGB, GRAY]), "<", sample_format=1).replace(extra, unknown))


def mask_beside(path):
    write_geotiff(path, RGB)
    path.with_name(f"{path.name}.msk").write_bytes(b"")


def value_beside(path):
    write_geotiff(path, RGB)
    xml = '<PAMDataset><PAMRasterBand band="1"><NoDataValue>0</NoDataValue></PAMRasterBand></PAMDataset>'
    path.with_name(f"{path.name}.aux.xml").write_text(xml)


REFUSED = {
    "two pages": (
        pages,
        r"holds 2 pages \(6×8\), and pages are not bands; write one page .*planarconfig='separate'",
    ),
    "two sizes": (lambda path: pages(path, second=(3, 4)), r"its bands differ in size \(3×4, 6×8\)"),
    "band last by default": (band_last_by_default, r"holds 20 pages \(30×2\)"),
    "band first by default": (band_first_by_default, r"holds 2 pages \(20×30\)"),
    "a batch": (a_batch, r"holds 2 pages \(20×30\)"),
    "a volume": (a_volume, "a volume of 4 slices"),
    "complex": (complex_numbers, "complex numbers; save amplitude"),
    "no-data text": (
        gdal_tag(42113, "missing"),
        "no-data value is 'missing', not a number; set it with gdal_edit",
    ),
    "metadata": (gdal_tag(42112, "<GDALMetadata><Item"), "its GDAL metadata is damaged"),
    "entities": (gdal_tag(42112, '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'), "is not plain XML"),
    "scale 0": (scale("0"), "a scale is 0"),
    "scale nan": (scale("nan"), "not finite"),
    "scale text": (scale("half"), "its scale is 'half', not a number"),
    "fourth band": (fourth_band_unknown, "whether its fourth band is alpha or data; say so: gdal_translate"),
    "mask beside": (mask_beside, r"a\.tif\.msk: holds the mask of a\.tif; put it into the file"),
    "value beside": (
        value_beside,
        r"a\.tif\.aux\.xml: holds the NoDataValue of a\.tif; put it into the file",
    ),
}


@pytest.mark.parametrize("library", ["rasterio", "tifffile", "Pillow", "GeoSource"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_defined_is_refused_by_all(name, library, tmp_path, monkeypatch):
    write, message = REFUSED[name]
    write(tmp_path / "a.tif")
    monkeypatch.setattr(tiff, "find_spec", lambda name: name == library or None)
    with pytest.raises(UserError, match=message) as caught:
        (GeoSource if library == "GeoSource" else read_image)(tmp_path / "a.tif")
    assert str(caught.value).startswith(f"{tmp_path}/a.tif")
    assert "\n" not in str(caught.value)


def test_harmless_files_beside_are_not_refused(tmp_path):
    write_geotiff(tmp_path / "a.tif", RGB)
    (tmp_path / "a.tif.aux.xml").write_text(
        "<PAMDataset><PAMRasterBand><Histograms/></PAMRasterBand></PAMDataset>"
    )
    (tmp_path / "a.tfw").write_text("10\n0\n0\n-10\n5\n5\n")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), RGB)


def test_a_smaller_copy_is_no_page(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(GRAY[..., 0], photometric="minisblack", metadata=None)
        writer.write(GRAY[::2, ::2, 0], photometric="minisblack", subfiletype=1, metadata=None)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), GRAY)


def test_a_missing_codec_is_said_as_one(tmp_path):
    write_geotiff(tmp_path / "a.tif", GRAY, compress="deflate")
    data = (tmp_path / "a.tif").read_bytes()
    before, after = (struct.pack("<HHII", 259, 3, 1, codec) for codec in (8, 50002))
    assert before in data
    (tmp_path / "a.tif").write_bytes(data.replace(before, after))
    for read in (read_image, GeoSource):
        with pytest.raises(
            UserError, match=r"a\.tif: cannot be .* codec, JPEG XL: pip install .* imagecodecs"
        ):
            read(tmp_path / "a.tif")


def test_the_type_is_known_by_content(tmp_path):
    write_geotiff(tmp_path / "a.tif", GRAY, nodata=int(GRAY[0, 0, 0]))
    (tmp_path / "a.tif").rename(tmp_path / "a.png")
    assert np.isnan(read_image(tmp_path / "a.png")[0, 0, 0])
    Image.fromarray(RGB).save(tmp_path / "b.png")
    (tmp_path / "b.png").rename(tmp_path / "b.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "b.tif"), RGB)


@pytest.mark.parametrize("library", ["rasterio", "tifffile", "Pillow"])
def test_masks_keep_their_numbers_by_any_library(library, tmp_path, monkeypatch):
    monkeypatch.setattr(tiff, "find_spec", lambda name: name == library or None)
    for dtype in ("uint8", "uint16", "int16", "int32"):
        write_geotiff(tmp_path / "a.tif", IDS[..., None].astype(dtype), nodata=255)
        mask = read_mask(tmp_path / "a.tif")
        assert mask.dtype == dtype
        np.testing.assert_array_equal(mask, IDS)


@pytest.mark.parametrize("library", ["rasterio", "tifffile", "Pillow"])
def test_masks_whose_meaning_is_open_are_refused(library, tmp_path, monkeypatch):
    monkeypatch.setattr(tiff, "find_spec", lambda name: name == library or None)
    tifffile.imwrite(tmp_path / "white.tif", IDS, photometric="miniswhite", metadata=None)
    write_geotiff(tmp_path / "zero.tif", IDS[..., None], nodata=0)
    for name, message in {
        "white": "white-is-zero, .*gdal_translate -co PHOTOMETRIC=MINISBLACK",
        "zero": "its no-data value 0 occurs in it; if that is a class: gdal_edit.py -unsetnodata",
    }.items():
        with pytest.raises(UserError, match=rf"{name}\.tif: .*{message}"):
            read_mask(tmp_path / f"{name}.tif")


def test_every_damaged_byte_is_one_line_or_the_same_size(tmp_path, capfd):
    write_geotiff(tmp_path / "good.tif", GRAY[:4, :4], nodata=3, scales=(2,), offsets=(1,))
    good = (tmp_path / "good.tif").read_bytes()
    for place in range(len(good)):
        (tmp_path / "a.tif").write_bytes(good[:place] + bytes([good[place] ^ 0x55]) + good[place + 1 :])
        message = refusal(read_header, tmp_path / "a.tif")
        assert message.startswith(f"{tmp_path}/a.tif: ") or not message
        assert "\n" not in message


def test_parts_that_are_missing_are_damage(tmp_path):
    """Libraries fill them in, with zeros, the no-data value, or what lies there."""
    tifffile.imwrite(
        tmp_path / "a.tif", GRAY[..., 0], photometric="minisblack", metadata=None, rowsperstrip=4
    )
    data = (tmp_path / "a.tif").read_bytes()
    for code, kind in ((3, "H"), (4, "I")):
        before, after = (struct.pack(f"<HHI{kind}", 257, code, 1, rows) for rows in (20, 2000))
        data = data.replace(before, after)
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(UserError, match=r"a\.tif: corrupt image, .* \(it has 5 of its 500 parts"):
        read_image(tmp_path / "a.tif")
