"""Images normalized by their own mean and deviation, wherever a network gets them."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.bundle.manifest import InputSpec
from deploy.cli import describe_manifest
from deploy.errors import UserError
from deploy.evaluation.labeled_data import network_input
from deploy.inference.normalize import standardized
from deploy.inference.preprocess import check_pixels, prepare, resize, to_network
from deploy.raster import ArraySource, Options, predict_raster
from deploy.raster.sources import ArraySink
from deploy.tasks.segmentation.model import SegmentationModel
from tests.deploy.tiny import CLASSES, SPECS, make_image, make_manifest

SAR = msgspec.structs.replace(SPECS["sar"], mean=(0.0, 0.0), std=(1.0, 1.0))


def by(normalize: str, **fields) -> InputSpec:
    return msgspec.structs.replace(SAR, normalize=normalize, **fields)


def scene(*size: int) -> np.ndarray:
    """An image without data in a third of its rows, with numbers in channel 1 there that would spoil any statistic."""
    image = make_image("sar", size=size)
    image[: size[0] // 3, :, 0] = np.nan
    image[: size[0] // 3, :, 1] = 1e6
    return image


def reference(image: np.ndarray) -> np.ndarray:
    """By the definition, in float64."""
    valid = ~np.isnan(image).any(axis=2)
    result = np.zeros(image.shape)
    for channel in range(image.shape[2]):
        seen = image[valid, channel].astype(np.float64)
        result[valid, channel] = (seen - seen.mean()) / seen.std()
    return result


def test_only_pixels_with_data_count():
    np.testing.assert_allclose(standardized(scene(33, 20)), reference(scene(33, 20)), atol=1e-5)


@given(st.floats(0.01, 1000), st.floats(-1000, 1000))
def test_gain_and_level_do_not_matter(gain, level):
    image = scene(9, 8).astype(np.float64)
    np.testing.assert_allclose(standardized(gain * image + level), standardized(image), atol=1e-3)


@pytest.mark.parametrize(
    "image", [np.full((3, 4, 2), 7.3e4), np.full((1, 1, 2), 0.0), np.full((3, 4, 2), np.nan)]
)
def test_a_constant_or_empty_image_is_zero(image):
    assert not standardized(image.astype(np.float32)).any()


def test_an_image_is_normalized_before_it_is_resized():
    array, valid = prepare(scene(64, 96), by("image"))
    expected = resize(standardized(scene(64, 96)), 32, 48)
    np.testing.assert_array_equal(array.transpose(1, 2, 0), expected)
    assert valid.sum() == (64 - 21) * 96


def test_a_patch_is_normalized_after_it_is_resized():
    array, _ = prepare(scene(64, 96), by("patch"))
    np.testing.assert_allclose(array.mean(axis=(1, 2)), 0, atol=1e-5)
    assert not array[:, :10].any()
    assert np.isfinite(array).all()
    seen = array[:, 11:]
    np.testing.assert_allclose(seen.std(axis=(1, 2)), 1, atol=1e-4)


def test_calibration_cuts_what_a_window_sees():
    image = scene(64, 96)
    whole, valid = network_input(image, by("image", resize="tile"))
    np.testing.assert_array_equal(whole[0].transpose(1, 2, 0), standardized(image)[16:48, 24:72])
    patch, _ = network_input(image, by("patch", resize="tile"))
    np.testing.assert_array_equal(patch[0].transpose(1, 2, 0), standardized(image[16:48, 24:72]))
    np.testing.assert_array_equal(valid, np.isfinite(image).all(axis=2)[16:48, 24:72])


class Echo:
    """An engine that remembers its inputs; the first channel above 0 is the second class."""

    name, file = "echo", None

    def __init__(self) -> None:
        self.seen = []

    def run(self, batch):
        self.seen += list(batch)
        logits = np.stack([-batch[:, 0], batch[:, 0]], axis=1)
        return {"logits": logits, "labels": logits.argmax(axis=1).astype(np.uint8)}


@pytest.mark.parametrize("normalize", ["image", "patch"])
def test_windows_of_a_larger_image(normalize):
    engine, image = Echo(), scene(64, 48)
    result = SegmentationModel(by(normalize, resize="tile"), CLASSES["sar"], engine)(image)
    assert (result.labels[:21] == 255).all()
    assert (result.labels[21:] < 2).all()
    prepared = standardized(image)
    for top, window in zip((0, 16, 32), engine.seen, strict=True):
        cut = prepared[top : top + 32] if normalize == "image" else standardized(image[top : top + 32])
        np.testing.assert_array_equal(window.transpose(1, 2, 0), cut)


def test_what_pads_a_small_image_is_no_data():
    engine, image = Echo(), make_image("sar", size=(20, 30))
    SegmentationModel(by("patch", resize="tile"), CLASSES["sar"], engine)(image)
    padded = np.full((32, 48, 2), np.nan, np.float32)
    padded[:20, :30] = image
    np.testing.assert_array_equal(engine.seen[0].transpose(1, 2, 0), standardized(padded))


def test_rasters_by_the_patch_alone():
    engine, image, sink = Echo(), scene(32, 84), ArraySink()
    model = SegmentationModel(by("patch", resize="tile"), CLASSES["sar"], engine)
    predict_raster(model, ArraySource(image), sink, Options(overlap=12))
    assert len(engine.seen) == 2
    for left, window in zip((0, 36), engine.seen, strict=True):
        np.testing.assert_array_equal(window.transpose(1, 2, 0), standardized(image[:, left : left + 48]))
    assert (sink.labels[:10] == 255).all()
    with pytest.raises(UserError, match=r"read tile by tile; train with --data\.normalize patch"):
        predict_raster(replace(model, input=by("image")), ArraySource(image), sink)


def test_integers_and_one_pixel():
    array, valid = prepare(np.array([[[-32768, 5]]], np.int16), by("image"))
    assert valid.all()
    assert not array.any()
    assert not to_network(check_pixels(np.ones((1, 1, 2), np.uint8), by("patch"))[0], by("patch")).any()


@pytest.mark.parametrize(
    "fields",
    [
        {"mean": (1.0, 0.0)},
        {"std": (2.0, 1.0)},
        {"nodata": None},
        {"depth": 0},
        {"dtype": "uint8", "layout": "NHWC"},
    ],
)
def test_what_does_not_go_together(fields):
    with pytest.raises(ValueError, match="input: "):
        InputSpec(**msgspec.structs.asdict(by("image")) | fields)


def test_info_says_whose_numbers():
    manifest = msgspec.structs.replace(make_manifest("sar"), input=by("patch"))
    assert "channel  VV: mean and std of each patch" in describe_manifest(manifest)
