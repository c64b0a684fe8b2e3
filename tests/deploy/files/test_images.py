"""Image files to arrays and back."""

import numpy as np
import pytest
from PIL import Image

from deploy.errors import UserError
from deploy.files.images import count_pixels, list_images, read_image, read_mask, write_png
from deploy.files.npy import save_image
from tests.deploy.files.pictures import FOUR, IDS, RGB
from tests.deploy.raw_images import make_tiff


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


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".tif"])
def test_pixels_are_counted_by_the_header(tmp_path, suffix):
    Image.fromarray(RGB).save(tmp_path / f"a{suffix}")
    assert count_pixels(tmp_path / f"a{suffix}") == RGB.shape[0] * RGB.shape[1]


@pytest.mark.parametrize("suffix", [".png", ".npy", ".tif"])
def test_too_little_memory_is_no_damage(tmp_path, monkeypatch, suffix):
    def fail(*_, **__):
        raise MemoryError

    np.save(tmp_path / "a.npy", RGB)
    write_png(tmp_path / "a.png", RGB)
    Image.fromarray(RGB).save(tmp_path / "a.tif")
    monkeypatch.setattr("deploy.files.tiff._LIBRARIES", [("Pillow", lambda _: None, fail)])
    monkeypatch.setattr("deploy.files.decoding.bands_of", fail)
    monkeypatch.setattr("numpy.lib.format.read_array", fail)
    with pytest.raises(UserError, match=r"a\.\w+: too little memory to read it; cut the image into parts"):
        read_image(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("shape", [(5, 70), (50, 70, 3), (3, 50, 70)])
def test_pixels_of_arrays_are_counted_by_the_header(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    assert count_pixels(tmp_path / "a.npy") == np.prod(shape) // (3 if len(shape) == 3 else 1)
    save_image(tmp_path / "b.npy", np.zeros((2, 70, 4), np.uint8))
    assert count_pixels(tmp_path / "b.npy") == 140


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


def test_alpha_of_png_is_dropped_and_that_of_tiff_is_a_mask(tmp_path):
    for name in ("a.png", "a.tif"):
        Image.fromarray(FOUR).save(tmp_path / name)
        Image.fromarray(FOUR[..., 2:]).save(tmp_path / f"gray_{name}")  # gray and alpha
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), RGB)
    np.testing.assert_array_equal(read_image(tmp_path / "gray_a.png"), FOUR[..., 2:3])
    shown = FOUR[..., 3:] > 0
    assert not shown.all()
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), np.where(shown, RGB, np.nan))
    np.testing.assert_array_equal(
        read_image(tmp_path / "gray_a.tif"), np.where(shown, FOUR[..., 2:3], np.nan)
    )


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
