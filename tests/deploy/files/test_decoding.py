"""Images are decoded without a change of their pixels, or refused; damage is one line that names the file."""

import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from deploy.errors import UserError
from deploy.files import decoding, tiff
from deploy.files.images import list_images, read_image, write_png
from tests.deploy.files.pictures import FOUR, RGB
from tests.deploy.raw_images import make_png16, make_tiff


def test_what_pillow_would_change_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff, "find_spec", lambda name: None)
    (tmp_path / "rgb16.png").write_bytes(make_png16(RGB, color_type=2))
    (tmp_path / "rgba16.png").write_bytes(make_png16(FOUR, color_type=6))
    (tmp_path / "la16.png").write_bytes(make_png16(FOUR[..., 2:], color_type=4))
    (tmp_path / "alpha.tif").write_bytes(make_tiff(FOUR, "<", sample_format=1, extra=1))
    (tmp_path / "extra.tif").write_bytes(make_tiff(FOUR, "<", sample_format=1, extra=0))
    Image.frombytes("LAB", (30, 20), RGB.tobytes()).save(tmp_path / "lab.tif")
    (tmp_path / "rgb16.tif").write_bytes(make_tiff(RGB.astype("<u2"), "<", sample_format=1))
    (tmp_path / "huge.tif").write_bytes(make_tiff(np.full((2, 2), 2**32 - 1, "<u4"), "<", sample_format=1))
    (tmp_path / "exact.tif").write_bytes(make_tiff(np.full((2, 2), 2**24 + 1, "<u4"), "<", sample_format=1))
    (tmp_path / "float.tif").write_bytes(make_tiff(RGB.astype("<f4"), "<", sample_format=3))
    for name, message in {
        "rgb16.png": "16 bits to 8; save them as .npy",
        "rgba16.png": "16 bits to 8",
        "la16.png": "16 bits to 8",
        "alpha.tif": r"edgedistill\[geo\]'.*save its bands as \.npy",
        "extra.tif": r"Pillow alone cannot read 4 band.*edgedistill\[geo\]",
        "lab.tif": "CIELAB",
        "rgb16.tif": r"Pillow alone cannot read 3 band\(s\) of uint16.*edgedistill\[geo\]",
        "huge.tif": "float32 cannot hold its uint32 value 4294967295",
        "exact.tif": "float32 cannot hold its uint32 value 16777217",
        "float.tif": "save its bands as .npy",
    }.items():
        with pytest.raises(UserError, match=rf"{name}: .*{message}") as caught:
            read_image(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("library", ["rasterio", "tifffile", "none"])
def test_signed_bytes_are_signed(library, tmp_path, monkeypatch):
    monkeypatch.setattr(tiff, "find_spec", lambda name: name == library or None)
    (tmp_path / "a.tif").write_bytes(make_tiff(RGB[..., 0].view("i1"), "<", sample_format=2))
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[..., 0], RGB[..., 0].view("i1"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".tif", ".jpg", ".png"])
def test_pixels_are_never_turned(tmp_path, suffix, orientation):
    image = Image.new("RGB", (48, 32))
    image.paste((255, 255, 255), (0, 0, 16, 8))
    exif = Image.Exif()
    exif[274] = orientation
    image.save(tmp_path / f"a{suffix}", exif=exif)
    again = read_image(tmp_path / f"a{suffix}")
    assert again.shape == (32, 48, 3)
    assert again[:8, :16].min() > 200
    assert again[8:].max() < 50
    assert again[:, 16:].max() < 50


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_pillows_limit_of_pixels_does_not_count(tmp_path, suffix, monkeypatch):
    Image.fromarray(RGB).save(tmp_path / f"a{suffix}")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}"), RGB)
    assert Image.MAX_IMAGE_PIXELS == 10
    monkeypatch.setattr(decoding, "MAX_PIXELS", 599)
    with pytest.raises(UserError, match=rf"a\{suffix}: 30×20 pixels are more than 599"):
        read_image(tmp_path / f"a{suffix}")


def test_a_damaged_size_is_not_believed(tmp_path):
    write_png(tmp_path / "a.png", RGB)
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[16:24] = struct.pack(">II", 30000, 30000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(
        UserError, match=r"a\.png: corrupt image, its \d+ bytes cannot hold 30000×30000 pixels"
    ):
        read_image(tmp_path / "a.png")


def test_channels_are_checked_before_pixels_are_decoded(tmp_path, monkeypatch):
    Image.new("1", (8000, 8000)).save(tmp_path / "a.png")
    Image.fromarray(RGB).save(tmp_path / "b.tif")
    np.save(tmp_path / "c.npy", RGB)

    def decoded(*_):
        pytest.fail("pixels were decoded")

    monkeypatch.setattr(Image.Image, "load", decoded)
    monkeypatch.setattr(tiff, "read_stored", decoded)
    for name, found in (("a.png", "1 channel"), ("b.tif", "3 channels"), ("c.npy", "3 channels")):
        with pytest.raises(UserError, match=rf"{name}: image has {found}, the bundle wants 2 \(VV, VH\)"):
            read_image(tmp_path / name, ("VV", "VH"))


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_animations_are_refused(tmp_path, suffix):
    frames = [Image.fromarray(RGB + np.uint8(i)) for i in range(2)]
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(UserError, match=rf"a\{suffix}: holds 2 frames; save each as an image"):
        read_image(tmp_path / f"a{suffix}")


def test_webp_is_read(tmp_path):
    Image.fromarray(FOUR).save(tmp_path / "a.webp", lossless=True, exact=True)
    np.testing.assert_array_equal(read_image(tmp_path / "a.webp"), RGB)
    assert list_images(tmp_path) == [tmp_path / "a.webp"]


def test_a_missing_codec_is_said_as_one(tmp_path, monkeypatch):
    Image.fromarray(RGB).save(tmp_path / "a.webp")
    monkeypatch.setattr(decoding.features, "check", lambda _: False)
    with pytest.raises(
        UserError, match=r"a\.webp: Pillow lacks the codec WebP: pip install --upgrade pillow"
    ):
        read_image(tmp_path / "a.webp")


def test_many_threads_may_read(tmp_path):
    limit, filters = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    paths = [tmp_path / f"a{suffix}" for suffix in (".png", ".tif", ".bmp")] * 20
    for path in paths[:3]:
        Image.fromarray(RGB).save(path)
    with ThreadPoolExecutor(8) as pool:
        for image in pool.map(read_image, paths):
            np.testing.assert_array_equal(image, RGB)
    assert limit == Image.MAX_IMAGE_PIXELS
    assert warnings.filters == filters


def test_odd_metadata_pass_in_silence(tmp_path, capfd):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[34665] = 12345678  # an EXIF part that is not there
    Image.fromarray(RGB).save(tmp_path / "a.tif", tiffinfo=tags)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), RGB)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
@pytest.mark.parametrize("part", [0, 0.5, 0.99])
def test_cut_file_is_named(tmp_path, suffix, part):
    buffer = BytesIO()
    format_ = {".png": "PNG", ".jpg": "JPEG", ".bmp": "BMP", ".tif": "TIFF"}[suffix]
    Image.fromarray(RGB).save(buffer, format=format_)
    data = buffer.getvalue()
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(UserError, match=rf"cut\{suffix}: corrupt image"):
        read_image(path)


def test_damage_within_a_png_is_seen(tmp_path):
    write_png(tmp_path / "a.png", RGB)
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(UserError, match=r"a\.png: corrupt image"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
def test_damage_is_one_line_or_passes(tmp_path, suffix):
    buffer = BytesIO()
    format_ = {".png": "PNG", ".jpg": "JPEG", ".bmp": "BMP", ".tif": "TIFF"}[suffix]
    Image.fromarray(RGB).save(buffer, format=format_)
    rng = np.random.default_rng(0)
    for _ in range(60):
        data = np.frombuffer(buffer.getvalue(), np.uint8).copy()
        data[rng.integers(4, min(200, len(data)), 3)] = rng.integers(0, 256, 3)
        (tmp_path / f"a{suffix}").write_bytes(data.tobytes())
        message = ""
        try:
            read_image(tmp_path / f"a{suffix}")
        except UserError as error:
            message = str(error)
        assert message.startswith(f"{tmp_path}/a{suffix}: ") or not message
        assert "\n" not in message
