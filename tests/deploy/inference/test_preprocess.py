"""preprocess.py and postprocess.py: pixels in, labels back out."""

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from deploy.bundle.manifest import InputSpec
from deploy.errors import UserError
from deploy.inference.postprocess import probabilities, restore_labels
from deploy.inference.preprocess import check_pixels, prepare, resize, resize_nearest
from deploy.scores.upsampling import softmax, upsample
from tests.deploy.tiny import SPECS, make_image

RGB, SAR = SPECS["rgb"], SPECS["sar"]
sizes = st.integers(1, 40)


def sized(spec: InputSpec, height: int, width: int) -> InputSpec:
    return msgspec.structs.replace(spec, height=height, width=width)


def test_uint8_of_the_right_size_is_not_copied():
    image = make_image("rgb")
    array, valid = prepare(image, RGB)
    assert np.shares_memory(array, image)
    assert array.shape == image.shape
    assert valid.all()
    assert valid.shape == (32, 48)


def test_float32_network_gets_channels_first_and_raw_units():
    image = make_image("sar")
    array, _ = prepare(image, SAR)
    assert array.flags.c_contiguous
    np.testing.assert_array_equal(array, image.transpose(2, 0, 1))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float16, np.float64])
def test_float32_network_takes_any_real_dtype(dtype):
    image = np.arange(32 * 48 * 2).reshape(32, 48, 2) % 200
    array, _ = prepare(image.astype(dtype), SAR)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array.transpose(1, 2, 0), image)


def test_shrinking_averages_areas():
    image = make_image("sar", size=(64, 96))
    array, valid = prepare(image, SAR)
    expected = image.reshape(32, 2, 48, 2, 2).mean((1, 3))
    np.testing.assert_allclose(array.transpose(1, 2, 0), expected, rtol=1e-5)
    assert valid.shape == (64, 96)


def weights(old: int, new: int, shrinks: bool) -> np.ndarray:
    """new×old: weights of the old pixels in a new one, by the definition of Pillow's BOX and BILINEAR, in float64."""
    scale = old / new
    distance = (np.arange(old) + 0.5) - (np.arange(new)[:, None] + 0.5) * scale
    kernel = np.abs(distance) < scale / 2 if shrinks else np.maximum(1 - np.abs(distance) / max(scale, 1), 0)
    return kernel / kernel.sum(axis=1, keepdims=True)


@given(sizes, sizes, sizes, sizes, st.integers(1, 5))
def test_resize_by_the_definition(height, width, new_height, new_width, channels):
    shrinks = new_height <= height and new_width <= width
    for old, new in ((height, new_height), (width, new_width)):  # a center on an edge may go either way
        assume(not shrinks or ((2 * np.arange(old) + 1) * new % (2 * old)).all())
    image = np.random.default_rng(0).random((height, width, channels), np.float32)
    result = resize(image, new_height, new_width)
    rows, columns = weights(height, new_height, shrinks), weights(width, new_width, shrinks)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, np.einsum("yh,hwc,xw->yxc", rows, image, columns), atol=1e-5)


@given(sizes, sizes, sizes, sizes, st.integers(1, 5))
def test_bytes_are_resized_as_reals_are(height, width, new_height, new_width, channels):
    image = np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)
    result = resize(image, new_height, new_width)
    assert result.dtype == np.uint8
    assert result.flags.writeable
    expected = resize(image.astype(np.float32), new_height, new_width)
    assert np.abs(result - expected).max() <= 1  # both sides are rounded in turn


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_areas_of_whole_pixels_are_averaged_exactly(dtype, channels):
    image = np.random.default_rng(0).integers(0, 200, (36, 40, channels)).astype(dtype)
    result = resize(image, 12, 8)
    assert result.dtype == dtype
    exact = image.astype(np.float64).reshape(12, 3, 8, 5, channels).mean((1, 3))
    if dtype == np.uint8:
        assert np.abs(result - exact).max() <= 1
    elif np.issubdtype(dtype, np.integer):
        np.testing.assert_array_equal(result, np.rint(exact))
    else:
        np.testing.assert_allclose(result, exact, rtol=1e-3 if dtype == np.float16 else 1e-6)


def test_extreme_figures_survive_the_resize():
    for dtype in (np.uint8, np.uint16, np.int16):
        for value in (np.iinfo(dtype).min, np.iinfo(dtype).max):
            image = np.full((9, 7, 2), value, dtype)
            assert (resize(image, 4, 4) == value).all()
            assert (resize(image, 20, 20) == value).all()


@pytest.mark.parametrize("size", [(30, 50), (13, 17), (12, 40), (40, 9)])
def test_resize_equals_torch(size):
    torch = pytest.importorskip("torch")
    image = make_image("sar", size=(13, 17))
    planes = torch.from_numpy(image.transpose(2, 0, 1))[None]
    expected = torch.nn.functional.interpolate(planes, size, mode="bilinear", antialias=True)[0].numpy()
    np.testing.assert_allclose(resize(image, *size).transpose(2, 0, 1), expected, atol=1e-4)


def test_views_are_fine():
    image = make_image("rgb", size=(40, 60))
    for view in (image[::-1], image[:, ::2], image[..., ::-1], image.transpose(1, 0, 2)):
        np.testing.assert_array_equal(prepare(view, RGB)[0], prepare(view.copy(), RGB)[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_pixels_without_data_become_the_mean_before_the_resize(bad):
    image = make_image("sar", size=(64, 96))
    image[:10, :, 0] = bad  # one channel is enough
    kept = image.copy()
    array, valid = prepare(image, SAR)
    np.testing.assert_array_equal(image, kept)
    assert not valid[:10].any()
    assert valid[10:].all()
    np.testing.assert_allclose(
        array[:, :5], np.broadcast_to(np.reshape(SAR.mean, (2, 1, 1)), (2, 5, 48)), rtol=1e-6
    )
    np.testing.assert_allclose(array[:, 5:], prepare(image[10:], sized(SAR, 27, 48))[0], rtol=1e-5)


def test_entirely_without_data():
    array, valid = prepare(np.full((50, 60, 2), np.nan, np.float32), SAR)
    assert not valid.any()
    assert np.isfinite(array).all()


@pytest.mark.parametrize(
    ("image", "spec", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), SAR, r"image has 3 channels, the bundle wants 2 \(VV, VH\)"),
        (np.zeros((4, 4), np.uint8), RGB, r"image has 1 channel, the bundle wants 3 \(R, G, B\)"),
        (np.zeros((4, 4, 3), np.float32), RGB, "image is float32, the bundle wants uint8"),
        (np.zeros((4, 4, 3), np.uint16), RGB, "image is uint16, the bundle wants uint8"),
        (np.zeros((4, 4, 2), complex), SAR, "image is complex128"),
        (np.zeros((4, 4, 2), bool), SAR, "image is bool"),
        (np.zeros((0, 4, 3), np.uint8), RGB, "not empty"),
        (np.zeros(4, np.uint8), RGB, r"shape \(4,\)"),
    ],
)
def test_wrong_images_are_named(image, spec, message):
    with pytest.raises(UserError, match=message):
        prepare(image, spec)


def test_nan_where_the_bundle_knows_no_nodata():
    image = make_image("sar")
    image[0, :3] = np.nan
    with pytest.raises(UserError, match="3 pixels that are NaN"):
        check_pixels(image, msgspec.structs.replace(SAR, nodata=None))


@given(sizes, sizes, sizes, sizes)
def test_labels_come_from_the_nearest_pixel_center(height, width, new_height, new_width):
    valid = np.ones((new_height, new_width), bool)
    rows, columns = np.indices((height, width), dtype=np.uint8)  # labels that tell where they come from
    for places, old, new, axis in ((rows, height, new_height, 0), (columns, width, new_width, 1)):
        source = np.moveaxis(restore_labels(places, valid, 255), axis, 0)
        wanted = (np.arange(new) + 0.5) * old / new
        assert np.abs(source + 0.5 - wanted[:, None]).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64])
def test_any_labels_are_resized_to_the_nearest(dtype):
    labels = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    large = resize_nearest(labels, 4, 6)
    assert large.dtype == dtype
    np.testing.assert_array_equal(large, labels.repeat(2, 0).repeat(2, 1))
    assert resize_nearest(labels, 2, 3) is labels
    # A center between two pixels goes down and to the right, independent of the other axis.
    np.testing.assert_array_equal(resize_nearest(large, 2, 3), labels)
    counted = np.arange(6)[None]
    assert resize_nearest(counted, 1, 3).tolist() == [[1, 3, 5]]
    assert resize_nearest(counted, 2, 2).tolist() == [[1, 4], [1, 4]]
    assert resize_nearest(counted.T, 2, 2).tolist() == [[1, 1], [4, 4]]


def test_labels_without_data_are_ignored_and_the_networks_are_kept():
    labels = np.ones((3, 4), np.uint8)
    valid = np.eye(3, 4, dtype=bool)
    result = restore_labels(labels, valid, 200)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, np.where(valid, 1, 200))
    assert labels.all()


def bilinear(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The definition of torch's `interpolate(mode="bilinear", align_corners=False)`, in float64."""
    for axis, new in enumerate(size):
        old = plane.shape[axis]
        where = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        low = np.floor(where).astype(int)
        high = np.minimum(low + 1, old - 1)
        weight = np.expand_dims(where - low, 1 - axis)
        plane = plane.take(low, axis) * (1 - weight) + plane.take(high, axis) * weight
    return plane


@given(sizes, sizes, sizes, sizes)
def test_scores_are_resized_as_torch_does(height, width, new_height, new_width):
    scores = np.random.default_rng(0).normal(size=(3, height, width)).astype(np.float32)
    expected = np.stack([bilinear(plane.astype(np.float64), (new_height, new_width)) for plane in scores])
    np.testing.assert_allclose(upsample(scores, (new_height, new_width)), expected, atol=1e-5)


@pytest.mark.parametrize("size", [(24, 40), (6, 11), (3, 5), (2, 40), (1, 1)])
def test_scores_equal_torch(size):
    torch = pytest.importorskip("torch")
    scores = np.random.default_rng(0).normal(size=(4, 6, 11)).astype(np.float32)
    interpolate = torch.nn.functional.interpolate
    expected = interpolate(torch.from_numpy(scores)[None], size, mode="bilinear", align_corners=False)[
        0
    ].numpy()
    result = upsample(scores, size)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_probabilities_by_the_definition():
    logits = np.random.default_rng(0).normal(0, 5, (4, 3, 5)).astype(np.float32)
    result = probabilities(logits, (24, 40), (31, 33))
    assert result.dtype == np.float32
    scores = np.stack([bilinear(bilinear(plane.astype(np.float64), (24, 40)), (31, 33)) for plane in logits])
    np.testing.assert_allclose(result, np.exp(scores) / np.exp(scores).sum(0), atol=1e-5)


def test_softmax_of_extreme_scores():
    scores = np.array([[[1e4, -1e30]], [[0.0, -1e30]]], np.float32)
    np.testing.assert_allclose(softmax(scores), [[[1, 0.5]], [[0, 0.5]]])
