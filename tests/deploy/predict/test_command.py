"""`edgedistill predict` on images: what it writes, prints and refuses."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from shapely.geometry import shape

import deploy
from deploy.cli import main
from deploy.errors import UserError
from deploy.files.images import read_image, read_mask
from deploy.inference.image_files import output_names
from deploy.tasks.segmentation.rle import decode
from tests.conftest import ROOT
from tests.deploy.raw_images import make_png_header, make_tiff
from tests.deploy.tiny import make_bundle, make_image


def test_predict_folder(bundle, images, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["predict", str(bundle), str(images), "--out", str(out), "--threads", "1"]) == 0
    assert sorted(path.name for path in out.glob("*.png")) == [
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
    assert main(["predict", str(bundle), str(images), "--out", str(out)]) == 1
    printed = capsys.readouterr()
    assert "broken.png: corrupt image" in printed.err
    assert "two.npy: image has 2 channels" in printed.err
    assert "3 of 5 images predicted" in printed.out
    assert "2 could not be predicted: broken.png, two.npy" in printed.out
    assert len(list(out.glob("*.png"))) == 6


def test_predict_goes_on_after_odd_files(bundle, images, tmp_path, capsys):
    """Each is one line, whatever its bytes lead a decoder into, and whatever its size."""
    np.savez(images / "archive.npz", a=np.zeros(3))
    (images / "archive.npz").rename(images / "archive.npy")
    np.save(images / "objects.npy", np.array([{}], object), allow_pickle=True)
    whole = (images / "red.png").read_bytes()
    head = b"\x93NUMPY\1\0v\0{'descr': '|u1', 'fortran_order': False, 'shape': "
    shapes = {"huge": "(1000000, 1000000, 7)", "endless": f"({10**40},)", "open": "(1, 2", "words": "(a b)"}
    for name, size in shapes.items():
        (images / f"{name}.npy").write_bytes(head + f"{size}, }}".encode().ljust(65) + b"\n")
    (images / "bomb.png").write_bytes(make_png_header(30000, 30000, whole))
    tifffile.imwrite(images / "batch.tif", np.zeros((4, 32, 48, 3), np.uint8), photometric="rgb")
    (images / "empty.tif").write_bytes(b"")
    out = tmp_path / "out"
    assert main(["predict", str(bundle), str(images), "--out", str(out)]) == 1
    printed = capsys.readouterr()
    assert "3 of 12 images predicted" in printed.out
    assert printed.err.count("\n") == 9
    for name in ("archive", "objects", "huge", "endless", "open", "words", "bomb", "batch", "empty"):
        assert f"error: {images / name}." in printed.err


def test_predict_on_bytes_with_a_mask(bundle, tmp_path, capsys):
    """A network of uint8 sees the channel means where there is no data, and such pixels get no label."""
    image, hole = make_image(), np.zeros((32, 48), bool)
    hole[:10] = True
    image[hole] = 255
    alpha = np.where(hole, 0, 255).astype(np.uint8)
    Image.fromarray(np.dstack([image, alpha])).save(tmp_path / "a.tif")
    assert main(["predict", str(bundle), str(tmp_path / "a.tif"), "--out", str(tmp_path / "out")]) == 0
    labels = read_mask(tmp_path / "out" / "a_mask.png")
    np.testing.assert_array_equal(labels == 255, hole)
    image[hole] = (120, 110, 100)
    expected = deploy.load(bundle)(image).labels
    np.testing.assert_array_equal(labels[~hole], expected[~hole])


def test_predict_one_corrupt_image_is_an_error(bundle, images, tmp_path):
    (images / "red.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"red\.png: corrupt image"):
        main(["predict", str(bundle), str(images / "red.png"), "--out", str(tmp_path / "out")])


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


def test_predict_takes_backend_and_precision(int8_bundle, images, tmp_path, capsys):
    for precision, label in (("auto", 1), ("int8", 1), ("fp32", 0)):
        out = tmp_path / precision
        options = ["--backend", "onnxruntime", "--precision", precision, "--threads", "1"]
        assert main(["predict", str(int8_bundle), str(images / "red.png"), "--out", str(out), *options]) == 0
        assert (read_image(out / "red_mask.png") == label).all()
    assert "1 of 1 images predicted by onnxruntime fp32, median" in capsys.readouterr().out


def test_predict_falls_back_on_request_and_says_so(int8_bundle, images, tmp_path):
    command = [sys.executable, "-m", "deploy", "predict", str(int8_bundle), str(images / "red.png")]
    command += ["--out", str(tmp_path / "out"), "--backend", "tensorrt", "--fallback"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0
    assert run.stderr.startswith(f"warning: {int8_bundle}: has no engine for tensorrt")
    assert run.stderr.endswith("running on the CPU instead, as asked\n")
    assert run.stderr.count("\n") == 1
    assert " fp32, median" in run.stdout  # INT8 has no record of its gate


def test_predict_goes_on_after_a_file_that_cannot_be_read(bundle, images, tmp_path, capsys, monkeypatch):
    read = Path.read_bytes

    def refuse(path):
        if path.name == "noise.png":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert main(["predict", str(bundle), str(images), "--out", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr()
    assert "noise.png: cannot be read (Permission denied)" in printed.err
    assert "2 of 3 images predicted" in printed.out


@pytest.mark.parametrize("kind", ["bands", "raw", "tiff_lzw", "tiff_deflate"])
def test_predict_says_one_line_about_a_bad_file(bundle, tmp_path, kind):
    path = tmp_path / "bad.tif"
    if kind == "bands":  # libtiff prints its own message about truncated files
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


def test_sources_of_every_kind_are_predicted_once(bundle, images, tmp_path, capsys):
    out = tmp_path / "out"
    pattern = str(images / "*.png")
    assert (
        main(["predict", str(bundle), str(images / "red.png"), pattern, str(images), "--out", str(out)]) == 0
    )
    assert "3 of 3 images predicted" in capsys.readouterr().out


def test_an_image_from_stdin(bundle, images, tmp_path):
    command = [sys.executable, "-m", "deploy", "predict", str(bundle), "-", "--out", str(tmp_path / "out")]
    content = (images / "red.png").read_bytes()
    done = subprocess.run(command, cwd=ROOT, input=content, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (read_image(tmp_path / "out" / "stdin_mask.png") == 0).all()
    done = subprocess.run(command, cwd=ROOT, input=b"", capture_output=True, check=False)
    assert done.returncode == 2
    assert b"stdin is empty" in done.stderr


def test_all_formats_agree_on_the_labels(bundle, images, tmp_path):
    out = tmp_path / "out"
    formats = "mask,overlay,beside,probabilities,npz,json,coco,geojson"
    arguments = [str(images / "noise.png"), "--out", str(out), "--save", formats, "--backend", "onnxruntime"]
    assert main(["predict", str(bundle), *arguments]) == 0
    labels = read_mask(out / "noise_mask.png")
    with np.load(out / "noise.npz") as arrays:
        assert (arrays["labels"] == labels).all()
        assert arrays["classes"].tolist() == ["red", "green", "blue"]
    coco = json.loads((out / "noise_coco.json").read_text())
    again = np.full(labels.shape, 255)
    for one in coco["annotations"]:
        mask = decode(one["segmentation"]["counts"], one["segmentation"]["size"])
        assert mask.sum() == one["area"]
        again[mask] = one["category_id"]
    assert (again == labels).all()
    counted = {one["id"]: one["pixels"] for one in json.loads((out / "noise.json").read_text())["classes"]}
    assert counted == {index: int((labels == index).sum()) for index in range(3)}
    regions = json.loads((out / "noise.geojson").read_text())["features"]
    for index in range(3):
        area = sum(shape(one["geometry"]).area for one in regions if one["properties"]["id"] == index)
        assert area == counted[index]
    assert (
        read_image(out / "noise_beside.png").shape[1] == 30 + read_image(out / "noise_overlay.png").shape[1]
    )


def test_drawing_can_be_chosen(bundle, images, tmp_path):
    def drawn(*options: str) -> np.ndarray:
        arguments = [
            "predict",
            str(bundle),
            str(images / "red.png"),
            "--out",
            str(tmp_path / "out"),
            *options,
        ]
        assert main([*arguments, "--save", "overlay", "--no-legend"]) == 0
        return read_image(tmp_path / "out" / "red_overlay.png")

    image = read_image(images / "red.png")
    assert (drawn("--opacity", "0") == image).all()
    assert (drawn("--opacity", "1") == (200, 30, 30)).all()
    assert (drawn("--opacity", "1", "--palette", "safe") == (230, 159, 0)).all()


def test_a_run_stands_for_its_student(bundle, images, tmp_path):
    shutil.copytree(bundle, tmp_path / "run" / "student.bundle")
    arguments = [str(images / "red.png"), "--out", str(tmp_path / "out")]
    assert main(["predict", str(tmp_path / "run"), *arguments]) == 0
    with pytest.raises(UserError, match="holds neither manifest"):
        main(["predict", str(images), *arguments])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.png", "--save", "mas"], r"--save mas: no such format \(did you mean mask\?\)"),
        (["a.png", "--opacity", "2"], "--opacity 2: give a weight"),
        (["a.png", "--frames", "0"], "--frames 0: give at least 1"),
        (["a.png", "--frames", "3"], "--frames 3: is for a video, stream or camera"),
        (["nothing-*.png"], r"nothing-\*\.png: matches no image"),
        (["rtsp://camera/1", "a.png"], "rtsp://camera/1: give a video, stream or camera alone"),
        (["a.png"], "a.png: no such file"),
    ],
)
def test_mistakes(bundle, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        main(["predict", str(bundle), *arguments])
