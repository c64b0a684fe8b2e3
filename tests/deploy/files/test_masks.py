"""Masks as stored: palette indices, few bits, colors and .npy."""

import numpy as np
import pytest
from PIL import Image

from deploy.errors import UserError
from deploy.files.images import read_image, read_mask, read_palette
from tests.deploy.files.pictures import IDS, RGB
from tests.deploy.raw_images import make_tiff


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


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_the_palette_gives_the_numbers_the_colors_that_images_have(tmp_path, suffix):
    path = tmp_path / f"mask{suffix}"
    image = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4), "L").convert("P")
    image.putpalette([value for index in range(256) for value in (index, 255 - index, 7 * index % 256)])
    image.save(path)
    palette = read_palette(path)
    assert palette is not None
    np.testing.assert_array_equal(palette[read_mask(path)], read_image(path))


def test_other_files_have_no_palette(tmp_path):
    Image.fromarray(np.zeros((3, 4), np.uint8)).save(tmp_path / "gray.png")
    np.save(tmp_path / "ids.npy", np.zeros((3, 4), np.uint8))
    assert [read_palette(tmp_path / name) for name in ("gray.png", "ids.npy")] == [None, None]
