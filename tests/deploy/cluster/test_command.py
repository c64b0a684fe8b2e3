"""`predict-many` on two processes: the bytes of one machine, failures at the end, and what is refused."""

import json
import sys
import time

import numpy as np
import pytest

from deploy.errors import UserError
from tests.deploy.cluster.runs import contents, many, one_by_one, raster, write_images, write_scenes
from tests.deploy.raster.mosaics import cut_up
from tests.deploy.raster.networks import sar, write_tif
from tests.deploy.tiny import make_bundle, make_image


def test_images_have_the_bytes_of_predict(bundles, scheduler, tmp_path, capsys):
    given = write_images(tmp_path / "images", 12)
    (given / "000.bmp").write_bytes((given / "001.png").read_bytes())  # results get the names of `predict`
    assert many(bundles / "rgb", given, tmp_path / "many", "--scheduler", scheduler) == 0
    assert "13 of 13 images predicted by onnxruntime fp32; results in" in capsys.readouterr().out
    one_by_one(bundles / "rgb", given, tmp_path / "one")
    assert contents(tmp_path / "many") == contents(tmp_path / "one")
    assert "000_bmp_mask.png" in contents(tmp_path / "many")
    assert not (tmp_path / "many" / ".predict-many").exists()


def test_arrays_and_probabilities(bundles, scheduler, tmp_path):
    given = write_scenes(tmp_path / "scenes", 5)
    options = ("--save", "mask,coco,geojson", "--probabilities", "--palette", "safe")
    many(bundles / "sar", given, tmp_path / "many", "--scheduler", scheduler, *options)
    one_by_one(bundles / "sar", given, tmp_path / "one", *options)
    assert contents(tmp_path / "many") == contents(tmp_path / "one")
    assert len(contents(tmp_path / "one")) == 20


def test_rasters_have_the_bytes_of_predict_raster(bundles, scheduler, tmp_path, capsys):
    given = tmp_path / "scenes"
    given.mkdir()
    for name, size in (("a.tif", (300, 200)), ("b.TIF", (40, 50)), ("c.tiff", (500, 90))):
        write_tif(given / name, sar(*size))
    options = ("--probabilities", "--probabilities-dtype", "uint8", "--overlap", "9", "--bands", "2,1")
    assert (
        many(bundles / "sar", given, tmp_path / "many", "--rasters", "--scheduler", scheduler, *options) == 0
    )
    assert "3 of 3 rasters predicted" in capsys.readouterr().out
    raster(bundles / "sar", given / "c.tiff", tmp_path / "c.tif", *options, "--json")
    alone = json.loads(capsys.readouterr().out)
    assert alone["files"] == [str(tmp_path / "c.tif"), str(tmp_path / "c_probabilities.tif")]
    assert (alone["width"], alone["height"], alone["run"]) == (90, 500, alone["tiles"])
    many(bundles / "sar", given, tmp_path / "again", "--rasters", "--scheduler", scheduler, "--json")
    again = json.loads(capsys.readouterr().out)
    assert (again["total"], again["done"], again["before"], again["failures"]) == (3, 3, 0, [])
    for name in ("a.tif", "b.TIF", "c.tiff"):
        raster(bundles / "sar", given / name, tmp_path / "one" / f"{name[0]}.tif", *options)
    assert contents(tmp_path / "many") == contents(tmp_path / "one")


def test_a_mosaic_has_the_bytes_of_the_raster_in_one_file(bundles, scheduler, tmp_path):
    image = make_image("rgb", 1, (230, 260))
    write_tif(tmp_path / "whole.tif", image)
    rows, columns = (slice(0, 100), slice(90, 230)), (slice(0, 70), slice(70, 170), slice(150, 260))
    cut_up(tmp_path / "parts", image, rows, columns)
    options = ("--memory", "1")
    raster(bundles / "rgb", tmp_path / "whole.tif", tmp_path / "one.tif", *options)
    for name in ("whole.tif", "parts"):
        out = tmp_path / "out" / name
        assert (
            many(bundles / "rgb", tmp_path / name, out, "--mosaic", "--scheduler", scheduler, *options) == 0
        )
        assert out.read_bytes() == (tmp_path / "one.tif").read_bytes()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["parts", "whole.tif"]


def test_unreadable_files_are_told_at_the_end_and_predicted_when_mended(bundles, scheduler, tmp_path, capsys):
    given, out = write_images(tmp_path / "images", 8), tmp_path / "many"
    good = (given / "003.png").read_bytes()
    (given / "003.png").write_bytes(good[:50])
    np.save(given / "two.npy", np.zeros((9, 9, 2), np.float32))
    assert many(bundles / "rgb", given, out, "--scheduler", scheduler) == 1
    printed = capsys.readouterr()
    assert "7 of 9 images predicted" in printed.out
    *_, count, first, second, remedy = printed.err.splitlines()
    assert count == "2 of 9 images could not be predicted:"
    assert first.startswith(f"error: {given / '003.png'}: corrupt image")
    assert second == f"error: {given / 'two.npy'}: image has 2 channels, the bundle wants 3 (R, G, B)"
    assert remedy == "mend or remove them, then continue with --resume"
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.png")}
    with pytest.raises(UserError, match=r"an interrupted run left 7 finished inputs.* add --resume"):
        many(bundles / "rgb", given, out, "--scheduler", scheduler)
    (given / "003.png").write_bytes(good)
    (given / "two.npy").unlink()
    assert many(bundles / "rgb", given, out, "--scheduler", scheduler, "--resume") == 0
    assert (
        "8 of 8 images predicted by onnxruntime fp32, 7 of them by an earlier run" in capsys.readouterr().out
    )
    assert all(path.stat().st_mtime_ns == written for path, written in before.items())
    one_by_one(bundles / "rgb", given, tmp_path / "one")
    assert contents(out) == contents(tmp_path / "one")


@pytest.mark.filterwarnings("always:.*has changed since:RuntimeWarning")
def test_an_unreadable_raster_does_not_stop_the_others(bundles, scheduler, tmp_path, capsys):
    given, out = tmp_path / "scenes", tmp_path / "out"
    given.mkdir()
    write_tif(given / "a.tif", sar(100, 100))
    (given / "b.tif").write_text("hello")
    write_tif(given / "c.tif", sar(200, 100), compress="deflate")
    content = (given / "c.tif").read_bytes()
    (given / "c.tif").write_bytes(content[:-3000] + b"\xff" * 3000)
    assert many(bundles / "sar", given, out, "--rasters", "--scheduler", scheduler) == 1
    printed = capsys.readouterr()
    assert "1 of 3 rasters predicted" in printed.out
    assert f"error: {given / 'b.tif'}: is not a GeoTIFF" in printed.err
    assert f"error: {given / 'c.tif'}: rows " in printed.err
    write_tif(given / "b.tif", sar(50, 50))
    write_tif(given / "c.tif", sar(200, 100))
    assert many(bundles / "sar", given, out, "--rasters", "--scheduler", scheduler, "--resume") == 0
    assert f"warning: {given / 'c.tif'}: has changed since the run was started" in capsys.readouterr().err
    for name in "abc":
        raster(bundles / "sar", given / f"{name}.tif", tmp_path / "one" / f"{name}.tif")
    assert contents(out) == contents(tmp_path / "one")


def test_another_run_is_not_resumed(bundles, scheduler, tmp_path):
    given, out = write_images(tmp_path / "images", 3), tmp_path / "many"
    (given / "000.png").write_bytes(b"")
    assert many(bundles / "rgb", given, out, "--scheduler", scheduler) == 1
    with pytest.raises(UserError, match="cannot be resumed, because --save changed"):
        many(bundles / "rgb", given, out, "--scheduler", scheduler, "--resume", "--probabilities")
    make_bundle(tmp_path / "other", resize="stretch")
    with pytest.raises(UserError, match="cannot be resumed, because bundle changed"):
        many(tmp_path / "other", given, out, "--scheduler", scheduler, "--resume")


def test_changed_inputs_and_lost_results_are_predicted_again(bundles, scheduler, tmp_path, capsys):
    given, out = write_images(tmp_path / "images", 4), tmp_path / "many"
    (given / "bad.png").write_bytes(b"")
    many(bundles / "rgb", given, out, "--scheduler", scheduler)
    (out / "001_mask.png").unlink()
    (given / "002.png").write_bytes((given / "003.png").read_bytes())
    (given / "bad.png").unlink()
    capsys.readouterr()
    assert many(bundles / "rgb", given, out, "--scheduler", scheduler, "--resume") == 0
    assert (
        "4 of 4 images predicted by onnxruntime fp32, 2 of them by an earlier run" in capsys.readouterr().out
    )
    one_by_one(bundles / "rgb", given, tmp_path / "one")
    assert contents(out) == contents(tmp_path / "one")


def test_existing_rasters_are_not_replaced(bundles, tmp_path):
    write_tif(tmp_path / "in.tif", sar(50, 50))
    (tmp_path / "out.tif").write_text("precious")
    for more in ((), ("--resume",)):
        with pytest.raises(UserError, match=r"out\.tif: exists; remove it"):
            many(bundles / "sar", tmp_path / "in.tif", tmp_path / "out.tif", "--mosaic", *more)
    assert (tmp_path / "out.tif").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.tif", "out.tif"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--overlap", "3"), "--overlap is for --rasters and --mosaic"),
        (("--bands", "1"), "--bands is for --rasters and --mosaic"),
        (("--rasters", "--save", "mask"), "--save is for images"),
        (("--mosaic", "--no-legend"), "--no-legend is for images"),
        (("--save", "mas"), r"--save mas: no such format \(did you mean mask\?\)"),
        (("--opacity", "2"), "--opacity 2: give a weight"),
        (("--workers", "0"), "--workers 0: give at least 1"),
        (
            ("--workers", "2", "--scheduler", "tcp://127.0.0.1:1"),
            "--workers is for processes of this machine",
        ),
        (("--timeout", "0"), "--timeout 0: give seconds above 0"),
        (("--rasters",), "holds no GeoTIFF"),
        (("--backend", "none"), "unknown backend 'none'"),
    ],
)
def test_bad_options(bundles, tmp_path, more, message):
    given = write_images(tmp_path / "images", 1)
    with pytest.raises(UserError, match=message):
        many(bundles / "rgb", given, tmp_path / "out", *more)
    assert not (tmp_path / "out").exists()


def test_inputs_that_are_none(bundles, tmp_path):
    (tmp_path / "empty").mkdir()
    given = write_images(tmp_path / "images", 1)
    cases = (
        (tmp_path / "empty", tmp_path / "out", "empty: holds no image"),
        (tmp_path / "missing", tmp_path / "out", "missing: no such folder"),
        (given / "000.png", tmp_path / "out", r"000\.png: is a file; give a folder"),
        (given, given, "is the folder of the inputs"),
    )
    for images, out, message in cases:
        with pytest.raises(UserError, match=message):
            many(bundles / "rgb", images, out)


def test_without_dask_it_says_what_to_install(bundles, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match=r"predict-many needs Dask .*: pip install 'edgedistill\[dask\]'"):
        many(bundles / "rgb", write_images(tmp_path / "images", 1), tmp_path / "out")


def test_a_scheduler_that_is_not_there_is_one_line_in_bounded_time(bundles, tmp_path):
    begin = time.monotonic()
    with pytest.raises(
        UserError, match=r"--scheduler tcp://127\.0\.0\.1:9: cannot be reached within 1 s"
    ) as caught:
        many(
            *(bundles / "rgb", write_images(tmp_path / "images", 1), tmp_path / "out"),
            *("--scheduler", "tcp://127.0.0.1:9", "--timeout", "1"),
        )
    assert time.monotonic() - begin < 20
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("out/.*"))
