"""The same TIFF has the same meaning by rasterio, by tifffile and by Pillow alone, or is refused with a package's name.

A library is taken for missing through `deploy.files.tiff.find_spec`, the one place that asks what is installed.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from deploy.files import tiff
from deploy.files.images import read_image
from tests.deploy.files.geotiffs import write_geotiff
from tests.deploy.files.pictures import refusal

rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed (pip install -e '.[geo]')")
H, W = 12, 17
RNG = np.random.default_rng(5)
BYTES = RNG.integers(1, 256, (H, W, 3), dtype=np.uint8)
REAL = RNG.normal(-12, 4, (H, W, 2)).astype(np.float32)
HOLE = np.zeros((H, W), bool)
HOLE[:5, :8] = True
NAN = np.float32(np.nan)


def holed(array: np.ndarray, value: float) -> np.ndarray:
    return np.where(HOLE[..., None], np.array(value, array.dtype), array)


def float_nodata(path: Path) -> np.ndarray:
    write_geotiff(path, holed(REAL, -9999), nodata=-9999)
    return holed(REAL, np.nan)


def end_of_float32(path: Path) -> np.ndarray:
    """The decimal digits of the tag are cut, so that the value itself is not found."""
    tags = [(42113, "s", 0, "-3.40282e+38", True)]
    array = holed(REAL, np.finfo(np.float32).min)[..., 0]
    tifffile.imwrite(path, array, photometric="minisblack", extratags=tags, metadata=None)
    return holed(REAL, np.nan)[..., :1]


def bytes_nodata(path: Path) -> np.ndarray:
    image = holed(BYTES, 0)
    image[8, 8, 0] = 0  # a color
    write_geotiff(path, image, nodata=0)
    expected = image.astype(np.float32)
    expected[HOLE] = np.nan
    return expected


def scaled(path: Path) -> np.ndarray:
    decibels = np.rint(REAL * 100).astype(np.int16)
    write_geotiff(path, holed(decibels, -32768), nodata=-32768, scales=(0.01, 0.5), offsets=(0, -3))
    return holed((decibels * (0.01, 0.5) + (0, -3)).astype(np.float32), np.nan)


def scaled_bytes(path: Path) -> np.ndarray:
    write_geotiff(path, BYTES[..., :1], scales=(0.5,), offsets=(-40,))
    return BYTES[..., :1] * np.float32(0.5) - np.float32(40)


def whole_pixel_nodata(path: Path) -> np.ndarray:
    image = holed(BYTES, 7)
    image[9, 9, 1] = 7
    write_geotiff(path, image, tags={"NODATA_VALUES": "7 7 7"})
    return holed(image.astype(np.float32), np.nan)


def internal_mask(path: Path) -> np.ndarray:
    write_geotiff(path, BYTES, mask=~HOLE)
    return holed(BYTES.astype(np.float32), np.nan)


def internal_mask_and_nodata(path: Path) -> np.ndarray:
    image = REAL.copy()
    image[11] = -1
    write_geotiff(path, image, mask=~HOLE, nodata=-1)
    expected = holed(image, np.nan)
    expected[11] = np.nan
    return expected


def alpha(path: Path) -> np.ndarray:
    opaque = np.where(HOLE, 0, 200).astype(np.uint8)
    Image.fromarray(np.dstack([BYTES, opaque])).save(path)
    return holed(BYTES.astype(np.float32), np.nan)


def fourth_band(path: Path) -> np.ndarray:
    image = np.dstack([BYTES, holed(BYTES, 0)[..., 0]])
    write_geotiff(path, image, photometric="minisblack")
    return image


def palette(path: Path) -> np.ndarray:
    colors = RNG.integers(0, 256, (256, 3), dtype=np.uint8)
    image = Image.fromarray(BYTES[..., 0])
    image.putpalette(colors.tobytes())
    image.save(path)
    return colors[BYTES[..., 0]]


def white_is_zero(path: Path) -> np.ndarray:
    tifffile.imwrite(path, BYTES[..., 0], photometric="miniswhite", metadata=None)
    return 255 - BYTES[..., :1]


def white_is_zero_of_16_bits(path: Path) -> np.ndarray:
    image = BYTES[..., :1].astype(np.uint16) * 200
    tifffile.imwrite(path, image[..., 0], photometric="miniswhite", metadata=None)
    return 65535 - image


def one_bit(path: Path) -> np.ndarray:
    Image.fromarray(BYTES[..., 0] > 99).save(path)
    return (BYTES[..., :1] > 99) * np.uint8(255)


def one_bit_white_is_zero(path: Path) -> np.ndarray:
    Image.fromarray(BYTES[..., 0] > 99).save(path, tiffinfo={262: 0}, compression="group4")
    with tifffile.TiffFile(path) as file:
        assert file.pages[0].photometric == 0
    return (BYTES[..., :1] > 99) * np.uint8(255)


def planes(path: Path) -> np.ndarray:
    tifffile.imwrite(
        path, BYTES.transpose(2, 0, 1), photometric="rgb", planarconfig="separate", metadata=None
    )
    return BYTES


def many_bands(path: Path) -> np.ndarray:
    image = RNG.normal(size=(24, 24, 30)).astype(np.float32)
    tifffile.imwrite(path, image, photometric="minisblack", planarconfig="contig", metadata=None)
    return image


def two_bands_first(path: Path) -> np.ndarray:
    tifffile.imwrite(path, REAL.transpose(2, 0, 1), photometric="minisblack", planarconfig="separate")
    return REAL


def two_bands_last(path: Path) -> np.ndarray:
    tifffile.imwrite(path, REAL, photometric="minisblack", planarconfig="contig")
    return REAL


def one_row(path: Path) -> np.ndarray:
    write_geotiff(path, REAL[:1])
    return REAL[:1]


def one_pixel(path: Path) -> np.ndarray:
    write_geotiff(path, REAL[:1, :1])
    return REAL[:1, :1]


def compressed(name: str, predictor: int = 1) -> Callable[[Path], np.ndarray]:
    def write(path: Path) -> np.ndarray:
        write_geotiff(
            path, REAL, compress=name, predictor=predictor, tiled=True, blockxsize=16, blockysize=16
        )
        return REAL

    write.__name__ = f"{name}_{predictor}"
    return write


def gray_lzw(path: Path) -> np.ndarray:
    write_geotiff(path, BYTES[..., :1], compress="lzw", predictor=2)
    return BYTES[..., :1]


def gray_zstd(path: Path) -> np.ndarray:
    write_geotiff(path, BYTES[..., :1], compress="zstd")
    return BYTES[..., :1]


def left_out_parts(path: Path) -> np.ndarray:
    write_geotiff(
        path, np.zeros((64, 64, 1), np.float32), sparse_ok=True, tiled=True, blockxsize=16, blockysize=16
    )
    return np.zeros((64, 64, 1), np.float32)


def colors_jpeg(path: Path) -> np.ndarray:
    """Close to, and by all libraries equal: they share one decoder."""
    smooth = np.add.outer(np.arange(64) * 2, np.arange(80))[..., None] + np.array([0, 10, 20])
    write_geotiff(path, smooth.astype(np.uint8), compress="jpeg", photometric="ycbcr", jpeg_quality=95)
    with rasterio.open(path) as file:
        return file.read().transpose(1, 2, 0)


def overviews(path: Path) -> np.ndarray:
    write_geotiff(path, holed(REAL, -1), nodata=-1, overviews=True)
    return holed(REAL, np.nan)


def double(path: Path) -> np.ndarray:
    write_geotiff(
        path, holed(REAL.astype(np.float64), -1.7976931348623157e308), nodata=-1.7976931348623157e308
    )
    return holed(REAL, np.nan)


def big_endian(path: Path) -> np.ndarray:
    tifffile.imwrite(
        path, BYTES[..., 0].astype(">u2"), byteorder=">", photometric="minisblack", metadata=None
    )
    return BYTES[..., :1].astype(np.uint16)


def big_tiff(path: Path) -> np.ndarray:
    tags = [(42113, "s", 0, "-1", True)]
    tifffile.imwrite(path, holed(REAL, -1)[..., 0], bigtiff=True, extratags=tags, metadata=None)
    return holed(REAL, np.nan)[..., :1]


FILES = [
    *(float_nodata, end_of_float32, bytes_nodata, scaled, scaled_bytes, whole_pixel_nodata, internal_mask),
    *(
        internal_mask_and_nodata,
        alpha,
        fourth_band,
        palette,
        white_is_zero,
        white_is_zero_of_16_bits,
        one_bit,
    ),
    *(
        one_bit_white_is_zero,
        planes,
        many_bands,
        two_bands_first,
        two_bands_last,
        one_row,
        one_pixel,
        gray_lzw,
    ),
    *(
        overviews,
        double,
        big_endian,
        big_tiff,
        compressed("lzw", 3),
        compressed("zstd"),
        compressed("lzma"),
    ),
    *(compressed("deflate", 2), compressed("lerc"), gray_zstd, left_out_parts, colors_jpeg),
]
BY_PILLOW = {
    *(
        "end_of_float32",
        "bytes_nodata",
        "scaled_bytes",
        "whole_pixel_nodata",
        "alpha",
        "palette",
        "white_is_zero",
    ),
    *("white_is_zero_of_16_bits", "one_bit", "one_bit_white_is_zero", "gray_lzw", "big_endian", "big_tiff"),
    *("gray_zstd", "colors_jpeg"),
}
"""Files that need no other library."""


@pytest.mark.parametrize("library", ["rasterio", "tifffile", "Pillow"])
@pytest.mark.parametrize("write", FILES, ids=lambda write: write.__name__)
def test_one_meaning_by_any_library(write, library, tmp_path, monkeypatch):
    expected = write(tmp_path / "a.tif")
    monkeypatch.setattr(tiff, "find_spec", lambda name: name == library or None)
    if message := refusal(read_image, tmp_path / "a.tif"):
        assert library != "rasterio"
        assert "pip install 'edgedistill[geo]'" in message
        assert "\n" not in message
        return
    image = read_image(tmp_path / "a.tif")
    assert image.dtype == expected.dtype
    np.testing.assert_array_equal(image, expected)


def test_what_is_read_without_rasterio(tmp_path, monkeypatch):
    """Of the files above; tifffile comes with training, and is enough for whatever needs no further codec."""
    read = {"tifffile": set(), "Pillow": set()}
    for library, names in read.items():
        monkeypatch.setattr(tiff, "find_spec", lambda name, library=library: name == library or None)
        for write in FILES:
            write(tmp_path / "a.tif")
            if not refusal(read_image, tmp_path / "a.tif"):
                names.add(write.__name__)
    assert read["Pillow"] == BY_PILLOW
    assert {write.__name__ for write in FILES} - read["tifffile"] <= {"lzw_3", "zstd_1", "lerc_1"}
