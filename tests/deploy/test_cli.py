"""cli.py and visualize.py: what a person gets to see."""

import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from deploy.build.steps import BUDGETS
from deploy.bundle.bundle_files import read_golden, write_bundle
from deploy.bundle.engine_files import LayerSummary, read_sidecar, record_verdict, write_engine
from deploy.bundle.manifest import GOLDEN, INT8_CPU, MODEL, ClassInfo
from deploy.cli import main, output_names
from deploy.errors import UserError, exit_with_one_line
from deploy.evaluation.golden import MIN_AGREEMENT
from deploy.files.atomic import atomic_write
from deploy.files.images import read_image, write_png
from deploy.visualize import colorize, overlay, palette, render, shares
from tests.conftest import ROOT
from tests.deploy.precisions import add_engine, make_precisions
from tests.deploy.raw_images import make_tiff
from tests.deploy.tiny import CLASSES, make_bundle, make_image, make_manifest


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "bundle"
    make_bundle(folder)
    return folder


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    red = np.zeros((40, 60, 3), np.uint8)
    red[..., 0] = 255
    write_png(folder / "red.png", red)
    Image.fromarray(red[..., ::-1]).save(folder / "red.bmp")  # blue
    write_png(folder / "noise.png", make_image(size=(20, 30)))
    return folder


def test_predict_folder(bundle, images, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["predict", str(bundle), str(images), "--out", str(out), "--threads", "1"]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "noise_mask.png",
        "noise_overlay.png",
        "red_bmp_mask.png",
        "red_bmp_overlay.png",
        "red_png_mask.png",
        "red_png_overlay.png",
    ]
    assert (read_image(out / "red_png_mask.png") == 0).all()
    assert (read_image(out / "red_bmp_mask.png") == 2).all()
    assert read_image(out / "noise_mask.png").shape == (20, 30, 1)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert "red.png  60×40  red 100.0 %" in lines[2]
    assert lines[3].startswith("3 of 3 images predicted")


def test_predict_one_image_with_probabilities(bundle, images, tmp_path):
    out = tmp_path / "out"
    arguments = ["predict", str(bundle), str(images / "red.png"), "--out", str(out), "--probabilities"]
    assert main(arguments) == 0
    probabilities = np.load(out / "red_probabilities.npy")
    assert probabilities.shape == (3, 40, 60)
    assert (probabilities.argmax(0) == 0).all()


def test_predict_goes_on_after_a_corrupt_image(bundle, images, tmp_path, capsys):
    (images / "broken.png").write_bytes((images / "red.png").read_bytes()[:50])
    np.save(images / "two.npy", np.zeros((9, 9, 2), np.float32))
    out = tmp_path / "out"
    assert main(["predict", str(bundle), str(images), "--out", str(out)]) == 2
    printed = capsys.readouterr()
    assert "broken.png: corrupt image" in printed.err
    assert "two.npy: image has 2 channels" in printed.err
    assert "3 of 5 images predicted" in printed.out
    assert len(list(out.iterdir())) == 6


def test_predict_one_corrupt_image_is_an_error(bundle, images):
    (images / "red.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"red\.png: corrupt image"):
        main(["predict", str(bundle), str(images / "red.png")])


def test_predict_never_writes_among_the_images(bundle, images):
    before = sorted(images.iterdir())
    for target in (images, images / "red.png"):
        with pytest.raises(UserError, match="choose another"):
            main(["predict", str(bundle), str(target), "--out", str(images)])
    assert sorted(images.iterdir()) == before


def test_predict_without_data(tmp_path, capsys):
    make_bundle(tmp_path / "sar", "sar")
    np.save(tmp_path / "empty.npy", np.full((20, 20, 2), np.nan, np.float32))
    assert (
        main(["predict", str(tmp_path / "sar"), str(tmp_path / "empty.npy"), "--out", str(tmp_path / "out")])
        == 0
    )
    assert "empty.npy  20×20  no data" in capsys.readouterr().out
    assert (read_image(tmp_path / "out" / "empty_mask.png") == 255).all()


def test_output_names_never_collide():
    paths = [Path(name) for name in ("a.jpg", "a.png", "a_jpg.bmp", "b.v2.png", "b.png")]
    names = output_names(paths)
    assert len(set(names)) == len(paths)
    assert names[3:] == ["b.v2", "b"]


def test_info(bundle, capsys):
    assert main(["info", str(bundle)]) == 0
    text = capsys.readouterr().out
    for part in (
        "tiny-rgb: segmentation, 3 classes",
        "uint8 NHWC, 32×48, stretch",
        "R: mean 120, std 50",
        "labels: uint8 N×32×48, label id",
        "1: green #1ec81e",
        "model.onnx:",
        "bytes, fp32",
        "miou: 0.5",
        "command: tests",
    ):
        assert part in text


def test_verify_passes_a_good_bundle(bundle, capsys):
    assert main(["verify", str(bundle)]) == 0
    text = capsys.readouterr().out
    assert "2 files match" in text
    assert "100.000 %" in text
    assert "passed" in text


def test_verify_fails_a_model_that_answers_otherwise(bundle, tmp_path, capsys):
    golden = read_golden(bundle)
    golden["labels"][0, :2] = 99
    golden["logits"][0, 0, 0, 0] += 7
    with atomic_write(tmp_path / "golden.npz") as file:
        np.savez(file, **golden)
    other = tmp_path / "other"
    write_bundle(other, make_manifest(), {MODEL: bundle / MODEL, GOLDEN: tmp_path / "golden.npz"})
    assert main(["verify", str(other)]) == 1
    text = capsys.readouterr().out
    assert "FAILED" in text
    assert "96.875 %" in text
    assert "difference of logits 7" in text


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> Path:
    """A bundle whose INT8 model calls red what is green."""
    return make_precisions(tmp_path_factory.mktemp("both") / "bundle", "int8")


def test_predict_takes_backend_and_precision(both, images, tmp_path, capsys):
    for precision, label in (("auto", 1), ("int8", 1), ("fp32", 0)):
        out = tmp_path / precision
        options = ["--backend", "onnxruntime", "--precision", precision, "--threads", "1"]
        assert main(["predict", str(both), str(images / "red.png"), "--out", str(out), *options]) == 0
        assert (read_image(out / "red_mask.png") == label).all()
    assert "1 of 1 images predicted by onnxruntime fp32, median" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--backend", "abacus"], "unknown backend 'abacus'"),
        (["--precision", "int4"], "unknown precision 'int4'"),
        (["--precision", "fp16"], "has no fp16 model"),
        (["--backend", "tensorrt"], "has no engine for tensorrt"),
    ],
)
def test_what_cannot_be_had_is_one_line(both, images, options, message):
    for command in (["predict", str(both), str(images)], ["verify", str(both)]):
        with pytest.raises(UserError, match=message):
            main([*command, *options])


def test_predict_falls_back_on_request_and_says_so(both, images, tmp_path):
    command = [sys.executable, "-m", "deploy", "predict", str(both), str(images / "red.png")]
    command += ["--out", str(tmp_path / "out"), "--backend", "tensorrt", "--fallback"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0
    assert run.stderr.startswith(f"warning: {both}: has no engine for tensorrt")
    assert run.stderr.endswith("running on the CPU instead, as asked\n")
    assert run.stderr.count("\n") == 1
    assert " int8, median" in run.stdout


def test_verify_asks_less_of_int8(both, bundle, tmp_path, capsys):
    """Its golden outputs are those of fp32."""
    golden = read_golden(bundle)
    golden["labels"][0, 0, :30] = 99  # 1 % of the pixels
    with atomic_write(tmp_path / "golden.npz") as file:
        np.savez(file, **golden)
    other = tmp_path / "other"
    files = {MODEL: bundle / MODEL, INT8_CPU: bundle / MODEL, GOLDEN: tmp_path / "golden.npz"}
    write_bundle(other, make_manifest(), files)
    assert main(["verify", str(other), "--backend", "onnxruntime"]) == 0
    assert (
        "onnxruntime int8: 2 golden inputs, labels agree on 99.023 % (at least 98 %)"
        in capsys.readouterr().out
    )
    assert main(["verify", str(other), "--backend", "onnxruntime", "--precision", "fp32"]) == 1
    assert (
        "onnxruntime fp32: 2 golden inputs, labels agree on 99.023 % (at least 99.9 %)"
        in capsys.readouterr().out
    )
    assert main(["verify", str(both)]) == 1  # another network altogether


def test_verify_asks_no_more_than_the_gates():
    assert MIN_AGREEMENT["int8"] <= BUDGETS["int8"].min_agreement
    assert MIN_AGREEMENT["fp16"] <= BUDGETS["fp16"].min_agreement


def test_info_shows_engines(tmp_path, capsys):
    make_bundle(tmp_path / "bundle")
    engine = add_engine(tmp_path / "bundle", "tensorrt", "fp16")
    layers = LayerSummary(convolutions=30, int8_convolutions=28, conversions=2, float_layers=("a", "b"))
    sidecar = msgspec.structs.replace(
        read_sidecar(engine),
        backend="tensorrt-rtx",
        precision="int8",
        targets=("sm86", "sm89"),
        layers=layers,
    )
    write_engine(tmp_path / "bundle", "rtx", bytes(2_500_000), sidecar)
    add_engine(tmp_path / "bundle", name="lost").with_suffix(".json").unlink()
    assert main(["info", str(tmp_path / "bundle")]) == 0
    lost, rtx, fp16 = capsys.readouterr().out.splitlines()[-3:]
    assert lost.startswith("engine   lost.engine: ")
    assert "no sidecar" in lost
    assert rtx == (
        "engine   rtx.engine: tensorrt-rtx 11.4.0, int8, for sm86, sm89, 2.5 MB, 28 of 30 convolutions in INT8"
    )
    assert fp16 == "engine   tensorrt-fp16.engine: tensorrt 11.4.0, fp16, for Orin (8.7), 0.0 MB"


def test_info_marks_engines_that_are_not_to_be_used(tmp_path, capsys):
    make_bundle(tmp_path / "bundle")
    failed = add_engine(tmp_path / "bundle", name="failed")
    record_verdict(failed, False)
    old = msgspec.structs.replace(read_sidecar(failed), source_sha256="0" * 64, passed=True)
    write_engine(tmp_path / "bundle", "old", b"engine", old)
    main(["info", str(tmp_path / "bundle")])
    failed, old = capsys.readouterr().out.splitlines()[-2:]
    assert failed.endswith(", FAILED its gate")
    assert old.endswith(", of an older model")


def test_only_lint_needs_onnx_by_itself(bundle, monkeypatch, capsys):
    monkeypatch.setattr("deploy.cli.find_spec", lambda _: None)
    with pytest.raises(UserError, match="lint reads ONNX files: pip install"):
        main(["lint", str(bundle)])
    with pytest.raises(SystemExit) as left:
        main(["build", "--help"])
    assert left.value.code == 0
    assert capsys.readouterr().out.startswith("usage: edgedistill build ")


def test_predict_goes_on_after_a_file_that_cannot_be_read(bundle, images, tmp_path, capsys, monkeypatch):
    read = Path.read_bytes

    def refuse(path):
        if path.name == "noise.png":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert main(["predict", str(bundle), str(images), "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert "noise.png: cannot be read (Permission denied)" in printed.err
    assert "2 of 3 images predicted" in printed.out


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied", "a/b"), OSError(5, "I/O", "a/b")])
def test_errors_of_the_system_are_one_line(error, capsys):
    def fail():
        raise error

    with pytest.raises(SystemExit) as left:
        exit_with_one_line(fail)
    assert left.value.code == 2
    assert capsys.readouterr().err == f"error: a/b: {error.strerror}\n"


def test_python_m_deploy_prints_one_line(bundle, tmp_path):
    def run(*arguments):
        command = [sys.executable, "-m", "deploy", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    good = run("info", str(bundle))
    assert (good.returncode, good.stderr) == (0, "")
    bad = run("verify", str(tmp_path))
    assert bad.returncode == 2
    assert (
        bad.stderr
        == f"error: {tmp_path}: has no manifest.json, so it is not a bundle; give the folder that the export wrote\n"
    )


@pytest.mark.parametrize("kind", ["bands", "raw", "tiff_lzw", "tiff_deflate"])
def test_predict_says_one_line_about_a_bad_file(bundle, tmp_path, kind):
    path = tmp_path / "bad.tif"
    if kind == "bands":  # libtiff has something to say itself of what stops early
        path.write_bytes(make_tiff(np.zeros((32, 48, 9), np.uint8), "<", sample_format=1))
    else:
        Image.fromarray(make_image()).save(path, compression=kind)
        path.write_bytes(path.read_bytes()[:-50])
    command = [
        sys.executable,
        "-m",
        "deploy",
        "predict",
        str(bundle),
        str(path),
        "--out",
        str(tmp_path / "out"),
    ]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr.startswith(f"error: {path}: {'image has 9' if kind == 'bands' else 'corrupt image'}")
    assert run.stderr.count("\n") == 1


def test_palette_is_stable_and_distinct():
    colors = palette(200)
    assert palette(7) == colors[:7]
    assert len(set(colors)) == 200
    assert min(max(color) for color in colors) > 100
    first = np.array(colors[:12], float)
    distances = np.linalg.norm(first[:, None] - first[None], axis=2) + 1e9 * np.eye(12)
    assert distances.min() > 40


def test_colorize():
    colors = colorize(np.array([[0, 2], [3, 255]], np.uint8), CLASSES["rgb"])
    np.testing.assert_array_equal(colors, [[(200, 30, 30), (30, 30, 200)], [(0, 0, 0), (0, 0, 0)]])


def test_shares_leave_out_what_is_no_class():
    labels = np.array([[0, 0, 0, 1], [255, 255, 7, 255]], np.uint8)
    np.testing.assert_array_equal(shares(labels, 3), [0.75, 0.25, 0])
    np.testing.assert_array_equal(shares(np.full((2, 2), 255, np.uint8), 3), [0, 0, 0])


def test_overlay_blends_classes_and_leaves_the_rest():
    image = np.full((60, 80, 3), 100, np.uint8)
    labels = np.zeros((60, 80), np.uint8)
    labels[30:] = 255
    plain = overlay(image, labels, CLASSES["rgb"], legend=False)
    np.testing.assert_array_equal(plain[0, 0], (150, 65, 65))
    np.testing.assert_array_equal(plain[30:], image[30:])
    sheet = overlay(image, labels, CLASSES["rgb"])
    assert sheet.shape[1] > 80
    np.testing.assert_array_equal(sheet[:60, :80], plain)
    panel = sheet[:, 80:].reshape(-1, 3)
    assert (panel == (200, 30, 30)).all(1).any()
    assert not (panel == (30, 200, 30)).all(1).any()  # no green in the picture, none in the legend
    assert (image == 100).all()


def test_legend_may_be_longer_than_a_small_picture():
    classes = tuple(ClassInfo(f"class {i}", color) for i, color in enumerate(palette(20)))
    labels = np.arange(400, dtype=np.uint8).reshape(20, 20) % 20
    sheet = overlay(np.zeros((20, 20, 3), np.uint8), labels, classes)
    assert sheet.shape[0] > 20 * 15


def test_render_of_other_inputs():
    rgb = make_image()
    np.testing.assert_array_equal(render(rgb), rgb)
    gray = render(rgb[..., :1])
    assert gray.shape == (32, 48, 3)
    np.testing.assert_array_equal(gray, rgb[..., [0, 0, 0]])
    sar = np.zeros((10, 100, 2), np.float32)
    sar[..., 0] = np.linspace(-30, 0, 100)
    sar[0, 50:] = np.nan
    shown = render(sar)
    assert (shown[0, 50:] == 0).all()
    assert (shown[5, :2] == 0).all()
    assert (shown[5, -2:] == 255).all()
    assert (np.diff(shown[5, :, 0].astype(int)) >= 0).all()
    assert (render(np.full((4, 4, 2), np.nan, np.float32)) == 0).all()
    assert (render(np.full((4, 4, 2), -9.0, np.float32)) == 0).all()


def test_manifest_struct_is_frozen():
    manifest = make_manifest()
    with pytest.raises(AttributeError):
        manifest.name = "other"
    assert msgspec.structs.replace(manifest, name="other").name == "other"
