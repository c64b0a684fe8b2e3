"""Area means by integer products equal Pillow's, bit by bit; whatever they cannot do is left to Pillow."""

from importlib.metadata import version

import numpy as np
import pytest
from PIL import Image

from deploy.host import cpu_flags
from deploy.inference import area_mean
from deploy.inference.area_mean import PATIENCE, shrink
from deploy.inference.preprocess import prepare, resize
from tests.deploy.inference.test_preprocess import RGB, sized

SIZES = [
    ((600, 800), (300, 400)),
    ((600, 800), (200, 100)),
    ((540, 960), (160, 320)),
    ((540, 960), (320, 320)),
    ((512, 1000), (36, 50)),
    ((525, 700), (300, 300)),
    ((525, 700), (420, 280)),
    ((600, 800), (600, 80)),
    ((1024, 260), (16, 260)),
]

right_products = pytest.mark.skipif(
    "amx_int8" in cpu_flags() and tuple(map(int, version("onnxruntime").split(".")[:2])) < (1, 24),
    reason="ONNX Runtime 1.23 multiplies integers wrongly on CPUs with AMX, so Pillow does it all",
)


@pytest.fixture(autouse=True)
def fresh():
    area_mean._product.cache_clear()
    yield
    area_mean._product.cache_clear()


def noise(size: tuple[int, int], channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, channels), np.uint8)


def shrunk(image: np.ndarray, size: tuple[int, int]) -> np.ndarray | None:
    """By products, once Pillow has done the first ones."""
    for _ in range(PATIENCE):
        assert shrink(image, *size) is None
    return shrink(image, *size)


@right_products
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(("old", "new"), SIZES)
def test_equal_to_pillow(old, new, channels):
    image = noise(old, channels, seed=1)
    result = shrunk(image, new)
    assert result is not None
    np.testing.assert_array_equal(result, resize(image, *new))
    assert result.flags.writeable


@right_products
@pytest.mark.parametrize("count", range(2, 33))
def test_every_sum_is_rounded_as_pillow_does(count):
    """Lines whose pixels, `count` to a mean, have every sum that there is: halves included."""
    base, more = np.divmod(np.arange(255 * count + 1), count)
    pixels = (base[:, None] + (np.arange(count) < more[:, None])).astype(np.uint8)
    line = np.ascontiguousarray(pixels.reshape(1, -1, 1))
    weights, same = area_mean._weights(4 * count, 4, 1), area_mean._weights(1, 1, 1)
    assert weights is not None
    assert same is not None
    for image, across, down in ((line, weights, same), (line.transpose(1, 0, 2), same, weights)):
        new = (image.shape[0] // len(down.table), image.shape[1] // len(across.table))
        products = area_mean._session(image.shape, new, across, down)
        expected = Image.fromarray(image[..., 0]).resize(new[::-1], Image.Resampling.BOX)
        np.testing.assert_array_equal(products(image)[..., 0], np.asarray(expected))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((400, 500), (100, 100)),
        ((769, 1367), (320, 320)),
        ((2000, 2000), (1, 1)),
        ((601, 800), (200, 100)),
        ((512, 1000), (36, 48)),
    ],
)
def test_small_images_and_odd_ratios_are_left_to_pillow(old, new):
    assert shrunk(noise(old), new) is None


def test_a_result_that_differs_from_pillow_is_never_used(monkeypatch):
    def session(shape, size, across, down):
        return lambda image: resize(image, *size) + np.uint8(image.size % 251 == 0 or 1)

    monkeypatch.setattr(area_mean, "_session", session)
    assert shrunk(noise((600, 800)), (300, 400)) is None


def test_an_image_is_prepared_as_before():
    spec = sized(RGB, 90, 160)
    for seed in range(PATIENCE + 2):
        image = noise((540, 960), seed=seed)
        pixels, valid = prepare(image, spec)
        np.testing.assert_array_equal(pixels, resize(image, 90, 160))
        assert valid.shape == (540, 960)
    view = noise((540, 1920))[:, ::2]
    np.testing.assert_array_equal(prepare(view, spec)[0], resize(view, 90, 160))


@right_products
def test_products_are_made_anew_after_a_fork(monkeypatch):
    image = noise((600, 800))
    assert shrunk(image, (300, 400)) is not None
    monkeypatch.setattr(area_mean.os, "getpid", lambda: -1)
    assert shrink(image, 300, 400) is None
