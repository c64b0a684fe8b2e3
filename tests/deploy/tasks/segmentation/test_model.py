"""SegmentationModel, backends and `deploy.load`: the right outputs of a bundle, from any thread, without torch."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime
import PIL.Image
import pytest

import deploy
from deploy.backends.onnxruntime_cpu import OrtEngine
from deploy.bundle.bundle_files import read_manifest
from deploy.bundle.golden_file import read_golden
from deploy.bundle.manifest import MODEL
from deploy.errors import UserError
from deploy.files.images import write_png
from deploy.tasks.segmentation.model import SegmentationModel
from tests.conftest import ROOT
from tests.deploy.tiny import SPECS, WEIGHTS, make_bundle, make_image, make_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    make_bundle(folder / "rgb")
    make_bundle(folder / "sar", "sar")
    make_bundle(folder / "tiled", "rgb", resize="tile")
    make_bundle(folder / "tiled-sar", "sar", resize="tile")
    return folder


@pytest.fixture(scope="module")
def rgb(folder) -> SegmentationModel:
    return deploy.load(folder / "rgb", threads=1)


@pytest.fixture(scope="module")
def sar(folder) -> SegmentationModel:
    return deploy.load(folder / "sar", threads=1)


def halves(left: int, right: int, size: tuple[int, int]) -> np.ndarray:
    """An image whose left half is of class `left` and whose right half of class `right`."""
    image = np.zeros((*size, 3), np.uint8)
    image[:, : size[1] // 2, left] = 255
    image[:, size[1] // 2 :, right] = 255
    return image


@pytest.mark.parametrize("size", [(32, 48), (64, 96), (20, 30), (41, 37)])
def test_labels_and_probabilities_at_the_size_of_the_image(rgb, size):
    result = rgb(halves(2, 1, size))
    assert result.labels.shape == size
    assert result.labels.dtype == np.uint8
    far = size[1] // 2 - size[1] // 6  # away from the border between the halves
    assert (result.labels[:, :far] == 2).all()
    assert (result.labels[:, -far:] == 1).all()
    assert result.probabilities.shape == (3, *size)
    assert result.probabilities.dtype == np.float32
    np.testing.assert_allclose(result.probabilities.sum(0), 1, atol=1e-5)
    assert (result.probabilities.argmax(0) == result.labels).mean() > 0.9
    assert result.probabilities is result.probabilities


def test_network_gets_what_the_manifest_says(folder, rgb):
    golden = read_golden(folder / "rgb")
    result = rgb(golden["inputs"])
    np.testing.assert_array_equal(result.labels, golden["labels"])


def test_timings_add_up(rgb):
    timings = rgb(make_image()).timings
    stages = (timings.preprocess_ms, timings.engine_ms, timings.postprocess_ms)
    assert min(stages) > 0
    assert timings.total_ms == pytest.approx(sum(stages))


@pytest.mark.parametrize("size", [(32, 48), (45, 50)])
@pytest.mark.parametrize("name", ["rgb", "sar", "tiled", "tiled-sar"])
def test_a_batch_is_its_images(folder, name, size):
    model = deploy.load(folder / name, threads=1)
    images = [make_image("sar" if "sar" in name else "rgb", seed, size) for seed in range(3)]
    single = [model(image) for image in images]
    for batch in (images, np.stack(images)):
        result = model(batch)
        np.testing.assert_array_equal(result.labels, [one.labels for one in single])
        np.testing.assert_array_equal(result.valid, [one.valid for one in single])
        np.testing.assert_allclose(result.probabilities, [one.probabilities for one in single], atol=1e-5)


def test_batch_of_one_keeps_its_axis(rgb):
    assert rgb(make_image()[None]).labels.shape == (1, 32, 48)
    assert rgb([make_image()]).probabilities.shape == (1, 3, 32, 48)


def test_gray_image_needs_no_channel_axis():
    spec = msgspec.structs.replace(SPECS["rgb"], channels=("gray",), mean=(99.0,), std=(10.0,))
    model = SegmentationModel(spec, (), OrtEngine(make_model(spec, np.array([[-1.0], [1.0]])), threads=1))
    image = make_image()[..., 0]
    np.testing.assert_array_equal(model(image).labels, model(image[..., None]).labels)


def test_pixels_without_data_are_ignored(sar):
    image = make_image("sar", size=(50, 70))
    image[..., 0] = -30  # water
    image[:20] = np.nan
    result = sar(image)
    assert (result.labels[:20] == 255).all()
    assert (result.labels[30:] == 0).all()
    np.testing.assert_array_equal(result.valid, ~np.isnan(image[..., 0]))


@pytest.mark.parametrize("name", ["sar", "tiled-sar"])
def test_image_entirely_without_data(folder, name):
    result = deploy.load(folder / name, threads=1)(np.full((40, 60, 2), np.nan, np.float32))
    assert (result.labels == 255).all()
    assert np.isfinite(result.probabilities).all()


def test_tiled_keeps_detail_that_resizing_loses(folder):
    image = np.zeros((96, 144, 3), np.uint8)
    image[..., 1] = 255
    image[40:56, 64:80] = (
        255,
        0,
        0,
    )  # 2×2 patches of the network at full resolution, less than one when shrunk
    labels = deploy.load(folder / "tiled", threads=1)(image).labels
    assert labels.shape == (96, 144)
    assert (labels[46:50, 70:74] == 0).all()
    assert (labels[:24] == 1).all()


@pytest.mark.parametrize("size", [(32, 48), (20, 30), (20, 100), (100, 30)])
def test_tiled_takes_any_size(folder, size):
    result = deploy.load(folder / "tiled", threads=1)(halves(0, 1, size))
    assert result.labels.shape == size
    assert result.probabilities.shape == (3, *size)
    assert (result.labels[:, 0] == 0).all()
    assert (result.labels[:, -1] == 1).all()


def test_threads_share_a_model(rgb):
    images = [make_image("rgb", seed, (30 + seed, 60 - seed)) for seed in range(24)]
    serial = [rgb(image) for image in images]
    with ThreadPoolExecutor(6) as pool:
        for one, other in zip(serial, pool.map(rgb, images), strict=True):
            np.testing.assert_array_equal(one.labels, other.labels)
            np.testing.assert_array_equal(one.probabilities, other.probabilities)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([make_image(), make_image(size=(8, 8))], r"one shape, found 8×8×3, 32×48×3"),
        ([], "empty"),
        (make_image()[None][:0], "empty"),
        ("photo.jpg", "photo.jpg: no such file"),
        (5, "expected an array|got int"),
        ([[1, 2], [3, 4]], "expected an array"),
        (
            ["a.png", Path("b.png")],
            r"got str among several; call model\(path\) for each file, or model\.stream",
        ),
        (PIL.Image.new("RGB", (48, 32)), r"got Image; give numpy\.asarray\(image\)"),
        (make_image("sar"), "image has 2 channels"),
        (np.zeros((1, 2, 3, 4, 5), np.uint8), r"shape \(1, 2, 3, 4, 5\)"),
    ],
)
def test_wrong_calls_are_named(rgb, images, message):
    with pytest.raises(UserError, match=message):
        rgb(images)


def test_load_refuses_a_damaged_bundle_unless_told_not_to_look(tmp_path):
    make_bundle(tmp_path / "b")
    golden = tmp_path / "b" / "golden.npz"
    golden.write_bytes(golden.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"golden\.npz"):
        deploy.load(tmp_path / "b")
    assert deploy.load(tmp_path / "b", verify=False)(make_image()).labels.shape == (32, 48)


@pytest.mark.parametrize("choice", [{"backend": "abacus"}, {"threads": 0}])
def test_load_refuses_unknown_choices(folder, choice):
    with pytest.raises(UserError, match=r"abacus.*onnxruntime|threads is 0"):
        deploy.load(folder / "rgb", **choice)


def test_optimizing_the_graph_changes_nothing(folder):
    golden = read_golden(folder / "rgb")
    plain = OrtEngine(folder / "rgb" / MODEL, threads=1, optimize=False).run(golden["inputs"])
    np.testing.assert_array_equal(plain["labels"], golden["labels"])
    np.testing.assert_allclose(plain["logits"], golden["logits"], atol=1e-5)


def test_engine_gives_the_logits_of_the_formula(folder):
    spec = read_manifest(folder / "sar").input
    inputs = read_golden(folder / "sar")["inputs"]
    normal = (inputs - np.reshape(spec.mean, (2, 1, 1))) / np.reshape(spec.std, (2, 1, 1))
    patches = normal.reshape(2, 2, 4, 8, 6, 8).mean((3, 5))
    logits = OrtEngine(make_model(spec, WEIGHTS["sar"]), threads=1).run(inputs)["logits"]
    np.testing.assert_allclose(logits, np.einsum("kc,nchw->nkhw", WEIGHTS["sar"], patches), atol=1e-5)


@pytest.mark.parametrize(
    ("cpuinfo", "overflows"),
    [
        ("model name : old\nflags\t\t: fpu sse2 avx2 avx512f\n", True),
        ("flags\t\t: fpu sse2 avx2 avx_vnni\n", False),
        ("flags\t\t: fpu sse2 avx512f avx512_vnni\n", False),
        ("Features\t: fp asimd\n", False),
    ],
)
def test_int8_stays_right_on_cpus_whose_sums_overflow(monkeypatch, cpuinfo, overflows):
    monkeypatch.setattr("deploy.host.read_text", lambda path: cpuinfo)
    asked = []
    session = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda model, options, **more: asked.append(options) or session(model, options, **more),
    )
    OrtEngine(make_model(SPECS["rgb"], WEIGHTS["rgb"]), threads=1)
    if overflows:
        assert asked[0].get_session_config_entry("session.x64quantprecision") == "1"
    else:
        with pytest.raises(RuntimeError, match="x64quantprecision"):
            asked[0].get_session_config_entry("session.x64quantprecision")


def test_what_is_no_model_is_named(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(UserError, match=r"model\.onnx: ONNX Runtime .* cannot load it") as caught:
        OrtEngine(tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)


def test_model_without_the_outputs_is_named():
    model = onnx.load_from_string(make_model(SPECS["rgb"], WEIGHTS["rgb"]))
    del model.graph.output[1]
    with pytest.raises(UserError, match="has outputs labels, needs labels, logits"):
        OrtEngine(model.SerializeToString())


IMPORTS = """
import sys
import deploy
light = {"torch", "onnx", "PIL", "onnxruntime", "numpy"} & set(sys.modules)
assert not light, light

import numpy
result = deploy.load(sys.argv[1], "onnxruntime", threads=1)(numpy.zeros((50, 60, 3), numpy.uint8))
assert result.probabilities.shape == (3, 50, 60)
heavy = {"torch", "onnx", "cv2", "tensorrt", "openvino", "distill", "teacher", "student"} & set(sys.modules)
assert not heavy, heavy
"""


def test_import_is_light_and_inference_needs_no_training_package(folder):
    command = [sys.executable, "-c", IMPORTS, str(folder / "rgb")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""


def test_an_image_file_is_read(rgb, tmp_path):
    image = make_image(size=(20, 30))
    write_png(tmp_path / "a.png", image)
    for path in (tmp_path / "a.png", str(tmp_path / "a.png")):
        assert (rgb(path).labels == rgb(image).labels).all()
