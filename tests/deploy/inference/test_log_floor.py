"""Networks that take the logarithm of their pixels: what the device does outside of the graph, and the manifest."""

import json
import math

import msgspec
import numpy as np
import pytest

from deploy.bundle.bundle_files import read_manifest, write_bundle
from deploy.bundle.manifest import MANIFEST, InputSpec
from deploy.cli import describe_manifest
from deploy.errors import UserError
from deploy.inference.normalize import fill_of, raw_mean
from deploy.inference.preprocess import prepare
from deploy.latency.latency import _random_image
from deploy.quantize.core_form import core_form
from deploy.raster import ArraySource, Options, predict_raster
from deploy.raster.sources import ArraySink
from deploy.tasks.segmentation.model import SegmentationModel
from tests.deploy.inference.test_normalize import Echo
from tests.deploy.tiny import CLASSES, SPECS, WEIGHTS, make_manifest, make_model

MEAN = (math.log(0.05), math.log(900.0))
LOG = msgspec.structs.replace(SPECS["sar"], mean=MEAN, std=(1.5, 0.5), log_floor=(1e-5, 0.2))
PHOTO = msgspec.structs.replace(
    SPECS["rgb"], mean=(math.log(99.5),) * 3, std=(1.0,) * 3, log_floor=(0.01,) * 3
)
FILL = np.array([0.05, 900.0], np.float32)


def amplitudes(*size: int) -> np.ndarray:
    """H×W×2 with long tails; the first third of the rows has no data."""
    image = np.exp(np.random.default_rng(0).normal(MEAN, (1.5, 0.5), (*size, 2))).astype(np.float32)
    image[: size[0] // 3, :, 0] = np.nan
    return image


def test_pixels_without_data_get_what_the_graph_makes_zero():
    array, valid = prepare(amplitudes(32, 48), LOG)
    assert not valid[:10].any()
    assert valid[10:].all()
    assert array.dtype == np.float32
    np.testing.assert_allclose(array[:, :10], np.broadcast_to(FILL[:, None, None], (2, 10, 48)), rtol=1e-6)
    np.testing.assert_array_equal(array[:, 10:], amplitudes(32, 48)[10:].transpose(2, 0, 1))
    network = (
        np.log(np.maximum(array[:, :10], np.array(LOG.log_floor)[:, None, None]))
        - np.array(MEAN)[:, None, None]
    )
    assert np.abs(network).max() < 1e-6


def test_so_does_what_pads_a_window_and_a_tile():
    image, engine = amplitudes(20, 30), Echo()
    tiled = msgspec.structs.replace(LOG, resize="tile")
    model = SegmentationModel(tiled, CLASSES["sar"], engine)
    model(image)
    predict_raster(model, ArraySource(image), ArraySink(), Options())
    assert len(engine.seen) == 2
    for window in engine.seen:
        np.testing.assert_allclose(
            window[:, 20:, 30:], np.broadcast_to(FILL[:, None, None], (2, 12, 18)), rtol=1e-6
        )
        np.testing.assert_allclose(
            window[:, :6, :30], np.broadcast_to(FILL[:, None, None], (2, 6, 30)), rtol=1e-6
        )


def test_bytes_and_linear_networks():
    assert fill_of(PHOTO).astype(np.uint8).tolist() == [99] * 3
    assert raw_mean(SPECS["sar"]) == SPECS["sar"].mean
    assert fill_of(SPECS["sar"]).tolist() == [-12.0, -19.0]


def test_random_images_are_in_raw_units():
    image = _random_image(LOG)
    assert image.min() > 0
    np.testing.assert_allclose(np.log(image).mean(axis=(0, 1)), MEAN, atol=0.2)


def test_info_says_of_what_the_numbers_are():
    manifest = msgspec.structs.replace(make_manifest("sar"), input=LOG)
    assert "channel  VH: mean 6.80239, std 0.5 of ln x, where x is at least 0.2" in describe_manifest(
        manifest
    )


def test_a_bundle_for_a_dla_alone_is_refused():
    with pytest.raises(
        UserError, match=r"takes the logarithm of its pixels .*; allow the GPU to run the rest"
    ):
        core_form(make_model(SPECS["sar"], WEIGHTS["sar"]), LOG, 1)


def test_only_manifests_with_a_floor_have_the_field(tmp_path):
    logarithms = msgspec.structs.replace(make_manifest("sar"), input=LOG)
    for name, manifest in (("linear", make_manifest("sar")), ("log", logarithms)):
        written = write_bundle(tmp_path / name, manifest, {})
        assert read_manifest(tmp_path / name) == written
        assert written.input == manifest.input
    fields = json.loads((tmp_path / "linear" / MANIFEST).read_text())["input"]
    assert list(fields) == [name for name in InputSpec.__struct_fields__ if name != "log_floor"]
    assert json.loads((tmp_path / "log" / MANIFEST).read_text())["input"]["log_floor"] == [1e-5, 0.2]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"log_floor": (0.1,)}, "2 channels and 1 log_floors do not match"),
        ({"log_floor": (0.1, 0.0)}, "not positive and finite"),
        ({"log_floor": (-1.0, 0.1)}, "not positive and finite"),
        ({"log_floor": (0.1, math.inf)}, "not positive and finite"),
        ({"log_floor": (0.01, math.nan)}, "not positive and finite"),
        ({"normalize": "patch", "mean": (0.0, 0.0), "std": (1.0, 1.0)}, "goes with normalize set"),
        ({"depth": 0}, "without depth"),
        ({"mean": (-3.0, 1e30)}, "no mean of logarithms"),
        ({"log_floor": (0.06, 0.2)}, "no mean of logarithms above its log_floor 0.06"),
        ({"mean": (math.nan, 1.0)}, "no mean of logarithms"),
    ],
)
def test_a_floor_that_cannot_be(fields, words):
    with pytest.raises(ValueError, match=rf"input: .*{words}"):
        InputSpec(**msgspec.structs.asdict(LOG) | fields)
