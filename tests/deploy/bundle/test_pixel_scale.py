"""The scales in numpy, and numbers of them that cannot be."""

import math

import msgspec
import numpy as np
import pytest

from deploy.bundle.manifest import InputSpec
from deploy.bundle.pixel_scale import LINEAR, PixelScale

LOG = PixelScale(log_floor=(0.01, 2.0))
CLIP = PixelScale(clip=((-1.0, 3.0), (5.0, 5.0)))
SPEC = InputSpec(("VV", "VH"), 8, 8, "float32", "NCHW", mean=(-3.0, 6.8), std=(1.5, 0.5), nodata="nan")
IN_LOG = msgspec.structs.replace(SPEC, log_floor=(1e-5, 0.2))
IN_CLIP = msgspec.structs.replace(SPEC, clip=((-9.0, 2.0), (0.0, 50.0)))


def test_names_and_words():
    assert [one.name for one in (LINEAR, LOG, CLIP)] == ["linear", "log", "percentile"]
    assert LINEAR.words() == ""
    assert LOG.words() == " of ln x, where x is at least 0.01 2"
    assert CLIP.words(slice(1, 2)) == " of x held between 5 and 5"


@pytest.mark.parametrize("scale", [LINEAR, LOG, CLIP], ids=lambda one: one.name)
def test_numpy_and_torch_are_the_same_and_nan_remains(scale):
    image = np.array([[-1e4, -1, 0, 2.5, 1e30, math.nan], [4, 5, 6, 0, -3, math.nan]], np.float32)
    low, high = (None if one is None else np.array(one, np.float32)[:, None] for one in scale.bounds)
    found = scale.scaled(image, (low, high), np)
    assert found.dtype == np.float32
    assert np.isnan(found[:, -1]).all()
    assert np.isfinite(found[:, :-1]).all()
    if scale is CLIP:
        np.testing.assert_array_equal(found[:, :-1], [[-1, -1, 0, 2.5, 3], [5] * 5])
    torch = pytest.importorskip("torch")
    bounds = tuple(None if one is None else torch.from_numpy(one) for one in (low, high))
    again = scale.scaled(torch.from_numpy(image), bounds, torch).numpy()
    np.testing.assert_allclose(again, found, rtol=1e-6)


@pytest.mark.parametrize("scale", [LINEAR, LOG, CLIP], ids=lambda one: one.name)
def test_raw_pixels_of_scaled_ones(scale):
    pixels = np.array([0.5, 5.0])
    scaled = scale.scaled(pixels, tuple(None if one is None else np.array(one) for one in scale.bounds), np)
    np.testing.assert_allclose(scale.raw(scaled, np), pixels)
    assert [scale.raw(value, math) for value in scaled.tolist()] == pytest.approx(pixels.tolist())
    for value, (low, high) in zip(scaled, scale.limits, strict=False):
        assert low <= value <= high


@pytest.mark.parametrize(
    ("spec", "fields", "words"),
    [
        (IN_LOG, {"log_floor": (0.1,)}, "2 channels and 1 log_floors do not match"),
        (IN_LOG, {"log_floor": (0.1, 0.0)}, "not positive and finite"),
        (IN_LOG, {"log_floor": (-1.0, 0.1)}, "not positive and finite"),
        (IN_LOG, {"log_floor": (0.1, math.inf)}, "not positive and finite"),
        (IN_LOG, {"log_floor": (0.01, math.nan)}, "not positive and finite"),
        (IN_LOG, {"mean": (-3.0, 1e30)}, "is no mean of ln x"),
        (IN_LOG, {"log_floor": (0.06, 0.2)}, "mean -3.0 of VV is no mean of ln x, where x is at least 0.06"),
        (IN_LOG, {"mean": (math.nan, 1.0)}, "is no mean of ln x"),
        (IN_CLIP, {"clip": ((0.0, 1.0),)}, "2 channels and 1 clips do not match"),
        (IN_CLIP, {"clip": ((2.0, -9.0), (0.0, 50.0))}, "not a finite low and high"),
        (IN_CLIP, {"clip": ((-math.inf, 2.0), (0.0, 50.0))}, "not a finite low and high"),
        (IN_CLIP, {"clip": ((-9.0, 2.0), (0.0, math.nan))}, "not a finite low and high"),
        (IN_CLIP, {"mean": (-3.0, 51.0)}, "mean 51.0 of VH is no mean of x held between 0 and 50"),
        (IN_CLIP, {"mean": (math.nan, 1.0)}, "is no mean of x"),
        (IN_CLIP, {"log_floor": (1e-5, 0.2)}, "log_floor and clip exclude each other"),
        *((one, {"depth": 0}, "without depth") for one in (IN_LOG, IN_CLIP)),
        *(
            (one, {"normalize": "patch", "mean": (0.0, 0.0), "std": (1.0, 1.0)}, "go with normalize set")
            for one in (IN_LOG, IN_CLIP)
        ),
    ],
)
def test_numbers_that_cannot_be(spec, fields, words):
    with pytest.raises(ValueError, match=rf"input: .*{words}"):
        InputSpec(**msgspec.structs.asdict(spec) | fields)


def test_a_constant_channel_is_a_range_of_one_value():
    spec = msgspec.structs.replace(SPEC, mean=(0.1, 5.0), clip=((0.1, 0.1), (5.0, 5.0)))
    assert spec.scale.limits == ((0.1, 0.1), (5.0, 5.0))
