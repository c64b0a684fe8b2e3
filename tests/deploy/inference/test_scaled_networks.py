"""Networks that scale their pixels: what the device does outside of the graph, and the manifest."""

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
CLIP = msgspec.structs.replace(
    SPECS["sar"], mean=(0.05, 900.0), std=(0.05, 300.0), clip=((0.01, 0.3), (400.0, 2000.0))
)
SCALES = pytest.mark.parametrize("spec", [LOG, CLIP], ids=["log", "percentile"])
FILL = np.array([0.05, 900.0], np.float32)


def amplitudes(*size: int) -> np.ndarray:
    """H×W×2 with long tails; the first third of the rows has no data."""
    image = np.exp(np.random.default_rng(0).normal(MEAN, (1.5, 0.5), (*size, 2))).astype(np.float32)
    image[: size[0] // 3, :, 0] = np.nan
    return image


@SCALES
def test_pixels_without_data_get_what_the_graph_makes_zero(spec):
    array, valid = prepare(amplitudes(32, 48), spec)
    assert not valid[:10].any()
    assert valid[10:].all()
    assert array.dtype == np.float32
    np.testing.assert_allclose(array[:, :10], np.broadcast_to(FILL[:, None, None], (2, 10, 48)), rtol=1e-6)
    np.testing.assert_array_equal(array[:, 10:], amplitudes(32, 48)[10:].transpose(2, 0, 1))
    low, high = (None if one is None else np.array(one)[:, None, None] for one in spec.scale.bounds)
    network = spec.scale.scaled(array[:, :10], (low, high), np) - np.array(spec.mean)[:, None, None]
    assert np.abs(network / np.array(spec.std)[:, None, None]).max() < 1e-6


@SCALES
def test_so_does_what_pads_a_window_and_a_tile(spec):
    image, engine = amplitudes(20, 30), Echo()
    tiled = msgspec.structs.replace(spec, resize="tile")
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
    image = _random_image(CLIP)
    low, high = np.array(CLIP.clip, np.float32).T
    assert (image >= low).all()
    assert (image <= high).all()
    assert image[..., 0].min() == low[0]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (LOG, "VH: mean 6.80239, std 0.5 of ln x, where x is at least 0.2"),
        (CLIP, "VH: mean 900, std 300 of x held between 400 and 2000"),
    ],
)
def test_info_says_of_what_the_numbers_are(spec, words):
    manifest = msgspec.structs.replace(make_manifest("sar"), input=spec)
    assert f"channel  {words}" in describe_manifest(manifest)


@SCALES
def test_a_bundle_for_a_dla_alone_is_refused(spec):
    with pytest.raises(
        UserError, match=rf"scales its pixels \(--data.scale {spec.scale.name}\).*; allow the GPU"
    ):
        core_form(make_model(SPECS["sar"], WEIGHTS["sar"]), spec, 1)


def test_only_manifests_with_a_scale_have_its_field(tmp_path):
    for name, spec in (("linear", SPECS["sar"]), ("log", LOG), ("percentile", CLIP)):
        manifest = msgspec.structs.replace(make_manifest("sar"), input=spec)
        written = write_bundle(tmp_path / name, manifest, {})
        assert read_manifest(tmp_path / name) == written
        assert written.input == manifest.input
    linear, log, percentile = (
        json.loads((tmp_path / name / MANIFEST).read_text())["input"]
        for name in ("linear", "log", "percentile")
    )
    assert list(linear) == [name for name in InputSpec.__struct_fields__ if name not in ("log_floor", "clip")]
    assert log["log_floor"] == [1e-5, 0.2]
    assert percentile["clip"] == [[0.01, 0.3], [400.0, 2000.0]]
    assert (log.keys() | percentile.keys()) - linear.keys() == {"log_floor", "clip"}
    assert "clip" not in log
