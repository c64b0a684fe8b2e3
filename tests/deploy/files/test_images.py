"""images.py: files to arrays and back."""

import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from deploy.errors import UserError
from deploy.files import decoding
from deploy.files.images import list_images, read_image, read_mask, write_png
from tests.deploy.raw_images import make_png16, make_tiff

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
IDS = RGB[..., 0] % 4
FOUR = np.dstack([RGB, RGB[..., 0]])


@pytest.mark.parametrize("image", [RGB, RGB[..., :1], RGB[..., :1].astype(np.uint16) * 257])
def test_png_round_trip(tmp_path, image):
    write_png(tmp_path / "a.png", image)
    again = read_image(tmp_path / "a.png")
    assert again.dtype == image.dtype
    assert again.flags.writeable
    np.testing.assert_array_equal(again, image)
    if image.shape[2] == 1:
        write_png(tmp_path / "b.png", image[..., 0])
        np.testing.assert_array_equal(read_mask(tmp_path / "b.png"), image[..., 0])


@pytest.mark.parametrize("suffix", [".bmp", ".tif", ".PNG"])
def test_channels_come_in_rgb_order(tmp_path, suffix):
    Image.fromarray(RGB).save(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}"), RGB)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg(tmp_path, mode):
    smooth = np.broadcast_to(np.linspace(0, 240, 30).astype(np.uint8)[:, None], (20, 30, 3))
    Image.fromarray(np.ascontiguousarray(smooth)).convert(mode).save(tmp_path / "a.jpg", quality=95)
    image = read_image(tmp_path / "a.jpg")
    assert image.shape == (20, 30, 1 if mode == "L" else 3)
    assert np.abs(image.astype(int) - smooth).max() < 12


def test_alpha_of_png_is_dropped_and_fourth_band_of_tiff_kept(tmp_path):
    for name in ("a.png", "a.tif"):
        Image.fromarray(FOUR).save(tmp_path / name)
        Image.fromarray(FOUR[..., 2:]).save(tmp_path / f"gray_{name}")  # gray and alpha
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), RGB)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), FOUR)
    np.testing.assert_array_equal(read_image(tmp_path / "gray_a.png"), FOUR[..., 2:3])
    np.testing.assert_array_equal(read_image(tmp_path / "gray_a.tif"), FOUR[..., 2:])


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
@pytest.mark.parametrize("transparency", [None, 1, b"\x00\x80\xff\xff"])
def test_palette_is_colors_in_an_image_and_ids_in_a_mask(tmp_path, suffix, transparency):
    colors = np.array([[0, 0, 0], [200, 30, 30], [30, 200, 30], [30, 30, 200]], np.uint8)
    image = Image.fromarray(IDS)
    image.putpalette(colors.tobytes())
    image.save(tmp_path / f"a{suffix}", **({} if transparency is None else {"transparency": transparency}))
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}"), colors[IDS])
    np.testing.assert_array_equal(read_mask(tmp_path / f"a{suffix}"), IDS)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate"])
def test_gray_tiff_of_all_dtypes(tmp_path, compression):
    real = np.array([[-12.5, np.nan], [3.25, 0]], np.float32)
    whole = np.array([[-300, 7], [0, 70000]], np.int32)
    for values in (real, whole, np.array([[0, 65535]], np.uint16), np.array([[0, 255]], np.uint8)):
        Image.fromarray(values).save(tmp_path / "a.tif", compression=compression)
        image = read_image(tmp_path / "a.tif")
        assert image.dtype == (np.float32 if values.dtype == np.int32 else values.dtype)
        np.testing.assert_array_equal(image, values[..., None])
        if values.dtype != np.float32:
            np.testing.assert_array_equal(read_mask(tmp_path / "a.tif"), values)


@pytest.mark.parametrize("order", ["<", ">"])
def test_signed_16_bit_tiff_of_either_byte_order(tmp_path, order):
    values = np.array([[-32768, -1, 0], [1, 2, 32767]], f"{order}i2")
    (tmp_path / "a.tif").write_bytes(make_tiff(values, order, sample_format=2))
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), values[..., None].astype(np.float32))
    (tmp_path / "b.tif").write_bytes(make_tiff(values.view(f"{order}u2"), order, sample_format=1))
    again = read_image(tmp_path / "b.tif")
    assert again.dtype == np.uint16
    assert again.dtype.isnative
    np.testing.assert_array_equal(again, values.view(f"{order}u2")[..., None])


def test_what_pillow_would_change_is_refused(tmp_path):
    (tmp_path / "rgb16.png").write_bytes(make_png16(RGB, color_type=2))
    (tmp_path / "rgba16.png").write_bytes(make_png16(FOUR, color_type=6))
    (tmp_path / "la16.png").write_bytes(make_png16(FOUR[..., 2:], color_type=4))
    (tmp_path / "alpha.tif").write_bytes(make_tiff(FOUR, "<", sample_format=1, extra=1))
    (tmp_path / "extra.tif").write_bytes(make_tiff(FOUR, "<", sample_format=1, extra=0))
    Image.frombytes("LAB", (30, 20), RGB.tobytes()).save(tmp_path / "lab.tif")
    (tmp_path / "rgb16.tif").write_bytes(make_tiff(RGB.astype("<u2"), "<", sample_format=1))
    (tmp_path / "signed.tif").write_bytes(make_tiff(RGB[..., 0].view("i1"), "<", sample_format=2))
    (tmp_path / "huge.tif").write_bytes(make_tiff(np.full((2, 2), 2**32 - 1, "<u4"), "<", sample_format=1))
    (tmp_path / "exact.tif").write_bytes(make_tiff(np.full((2, 2), 2**24 + 1, "<u4"), "<", sample_format=1))
    (tmp_path / "float.tif").write_bytes(make_tiff(RGB.astype("<f4"), "<", sample_format=3))
    for name, message in {
        "rgb16.png": "16 bits to 8; save them as .npy",
        "rgba16.png": "16 bits to 8",
        "la16.png": "16 bits to 8",
        "alpha.tif": "alpha channel; save",
        "extra.tif": "reads 3 of its 4 bands; save them as .npy",
        "lab.tif": "CIELAB",
        "rgb16.tif": "16 bits to 8; save them as .npy",
        "signed.tif": "signed",
        "huge.tif": "31 bits",
        "exact.tif": "int32",
        "float.tif": "save its bands as .npy",
    }.items():
        with pytest.raises(UserError, match=rf"{name}: .*{message}") as caught:
            read_image(tmp_path / name)
        assert "\n" not in str(caught.value)


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


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16"])
def test_masks_come_as_stored(tmp_path, mode):
    colors = mode.startswith("RGB")
    stored = RGB if colors else (IDS > 1).astype(np.uint8) if mode == "1" else IDS
    if mode == "1":
        image = Image.fromarray(stored * np.uint8(255)).convert("1")
    elif mode in ("P", "PA"):
        image = Image.fromarray(stored)
        image.putpalette(bytes(range(12)))
        image = image.convert(mode)
    elif mode == "I;16":
        image = Image.fromarray(stored * np.uint16(1000))
    else:
        image = Image.fromarray(stored).convert(mode)
    image.save(tmp_path / ("a.tif" if mode == "PA" else "a.png"))
    mask = read_mask(tmp_path / ("a.tif" if mode == "PA" else "a.png"))
    assert mask.dtype == (np.uint16 if mode == "I;16" else np.uint8)
    np.testing.assert_array_equal(mask, stored * np.uint16(1000) if mode == "I;16" else stored)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_masks_of_few_bits(tmp_path, bits):
    ids = np.arange(16, dtype=np.uint8).reshape(2, 8) % 2**bits
    digits = "".join(f"{one:0{bits}b}" for row in ids for one in row)
    packed = np.array([int(digits[i : i + 8], 2) for i in range(0, len(digits), 8)], np.uint8)
    tags = {256: 8, 257: 2, 258: bits, 259: 1, 262: 1, 273: 0, 277: 1, 278: 2, 279: packed.size}
    tiff = make_tiff(packed[None], "<", sample_format=1)
    table = np.frombuffer(
        tiff, [("tag", "<u2"), ("type", "<u2"), ("n", "<u4"), ("v", "<u4")], 10, offset=10
    ).copy()
    for tag in (256, 257, 258, 278):
        table["v"][table["tag"] == tag] = tags[tag]
    (tmp_path / "a.tif").write_bytes(tiff[:10] + table.tobytes() + tiff[10 + table.nbytes :])
    np.testing.assert_array_equal(read_mask(tmp_path / "a.tif"), ids)
    assert read_image(tmp_path / "a.tif").max() == 255


@pytest.mark.parametrize("values", [IDS.astype(np.int64), IDS[..., None], IDS > 1, RGB])
def test_masks_in_npy(tmp_path, values):
    np.save(tmp_path / "a.npy", values)
    expected = values[..., 0] if values.shape[2:] == (1,) else values
    np.testing.assert_array_equal(read_mask(tmp_path / "a.npy"), expected)


def test_bad_masks_are_named(tmp_path):
    np.save(tmp_path / "real.npy", np.zeros((2, 3)))
    np.save(tmp_path / "two.npy", np.zeros((2, 3, 2), np.uint8))
    (tmp_path / "text.npy").write_text("hello")
    (tmp_path / "text.png").write_text("hello")
    Image.fromarray(np.zeros((2, 3), np.float32)).save(tmp_path / "real.tif")
    Image.fromarray(RGB).convert("CMYK").save(tmp_path / "ink.tif")
    for name, message in {
        "real.npy": "float64",
        "two.npy": r"\(2, 3, 2\)",
        "text.npy": "corrupt",
        "text.png": "corrupt image",
        "real.tif": "float32",
        "ink.tif": r"\(20, 30, 4\)",
        "gone.png": "no such file",
    }.items():
        with pytest.raises(UserError, match=f"{name}: .*{message}") as caught:
            read_mask(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 2), (2, 20, 30)])
def test_npy_in_either_layout(tmp_path, shape):
    values = np.random.default_rng(0).random(shape)
    np.save(tmp_path / "a.npy", values)
    image = read_image(tmp_path / "a.npy")
    expected = (
        values[..., None] if len(shape) == 2 else values if shape[2] == 2 else values.transpose(1, 2, 0)
    )
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, expected.astype(np.float32))


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


def test_bad_files_are_named(tmp_path):
    (tmp_path / "text.npy").write_text("hello")
    np.save(tmp_path / "deep.npy", np.zeros((2, 3, 4, 5)))
    np.save(tmp_path / "ints.npy", np.zeros((3, 4), np.int64))
    (tmp_path / "notes.txt").write_text("hello")
    for name, message in {
        "text.npy": "corrupt",
        "deep.npy": r"\(2, 3, 4, 5\)",
        "ints.npy": "int64",
        "notes.txt": "not an image",
        "gone.png": "no such file",
    }.items():
        with pytest.raises(UserError, match=f"{name}: .*{message}") as caught:
            read_image(tmp_path / name)
        assert "\n" not in str(caught.value)


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


@pytest.mark.parametrize(
    "array",
    [np.zeros((2, 2)), np.zeros((2, 2, 3), np.uint16), np.zeros((2, 2, 2), np.uint8), np.zeros(2, np.uint8)],
)
def test_png_refuses_what_it_does_not_hold(tmp_path, array):
    with pytest.raises(ValueError, match=f"not {array.dtype} of shape"):
        write_png(tmp_path / "a.png", array)
    assert not list(tmp_path.iterdir())


def test_list_images_sorts_and_skips_others(tmp_path):
    for name in ("b.JPG", "a.png", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in list_images(tmp_path)] == ["a.png", "b.JPG"]


def test_list_images_names_an_empty_or_missing_folder(tmp_path):
    with pytest.raises(UserError, match="holds no image"):
        list_images(tmp_path)
    with pytest.raises(UserError, match="gone: no such folder"):
        list_images(tmp_path / "gone")
