"""GeoTIFFs: what is read as data, what is written, and the command from end to end."""

import os
import shutil
import sys

import numpy as np
import pytest

from deploy.cli import main
from deploy.errors import UserError
from deploy.loading import load
from deploy.raster import geo
from deploy.raster.geo import GeoSource
from deploy.tasks.segmentation import geotiff
from tests.deploy.raster.networks import predict, sar, write_tif, write_tif_of_points
from tests.deploy.tiny import make_bundle, make_image

rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed here (pip install -e '.[geo]')")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    make_bundle(folder / "rgb", resize="tile")
    make_bundle(folder / "sar", "sar", resize="tile")
    return folder


def command(bundle, raster, out, *more):
    return main(["predict-raster", str(bundle), str(raster), str(out), "--backend", "onnxruntime", *more])


def read(path):
    with rasterio.open(path) as file:
        return file.read(), file.profile


def test_labels_lie_where_the_input_lies(bundles, tmp_path, capsys):
    image = make_image("rgb", 1, (500, 700))
    write_tif(tmp_path / "in.tif", image)
    assert command(bundles / "rgb", tmp_path / "in.tif", tmp_path / "new" / "out.tif") == 0
    labels, profile = read(tmp_path / "new" / "out.tif")
    wanted = predict(image, model=load(bundles / "rgb", "onnxruntime")).labels
    np.testing.assert_array_equal(labels[0], wanted)
    assert (profile["crs"].to_epsg(), profile["transform"].c, profile["transform"].e) == (32632, 500000, -10)
    assert (profile["nodata"], profile["dtype"], profile["tiled"], profile["compress"]) == (
        255,
        "uint8",
        True,
        "deflate",
    )
    with rasterio.open(tmp_path / "new" / "out.tif") as file:
        assert file.overviews(1) == [2, 4]
        assert file.colormap(1)[1][:3] == (30, 200, 30)
        assert file.tags()["CLASS_2"] == "blue"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out.tif"]
    output = capsys.readouterr()
    assert "700×500 pixels predicted by onnxruntime fp32" in output.out
    assert "100 %" in output.err
    assert "note" not in output.err


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_probabilities(bundles, tmp_path, dtype):
    image = sar(70, 90)
    image[:20] = np.nan
    write_tif(tmp_path / "in.tif", image)
    command(
        *(bundles / "sar", tmp_path / "in.tif", tmp_path / "out.tif"),
        *("--probabilities", "--probabilities-dtype", dtype),
    )
    labels = read(tmp_path / "out.tif")[0][0]
    with rasterio.open(tmp_path / "out_probabilities.tif") as file:
        planes = file.read().astype(np.float32) * np.reshape(file.scales, (-1, 1, 1))
        assert file.descriptions == ("water", "land")
        assert (file.read_masks(1)[:20] == 0).all()
        assert file.dtypes == (dtype, dtype)
    assert (labels[:20] == 255).all()
    np.testing.assert_allclose(planes[:, 20:].sum(axis=0), 1, atol=0.01)


def test_no_data_value_mask_and_alpha(bundles, tmp_path):
    values = np.rint(sar(70, 90)).astype(np.int16)
    values[:9, :, 0] = -9999
    source = GeoSource(write_tif(tmp_path / "value.tif", values, nodata=-9999))
    pixels, valid = source.read_window(0, 10, 20, 30)
    assert pixels.dtype == np.float32
    assert not valid[:9].any()
    assert valid[9:].all()
    image = make_image("rgb", 0, (70, 90)).clip(1)
    image[:9] = 0
    image[9:, :, 0] = 0  # a color
    pixels, valid = GeoSource(write_tif(tmp_path / "zero.tif", image, nodata=0)).read_window(0, 0, 70, 90)
    assert pixels.dtype == np.uint8
    assert not valid[:9].any()
    assert valid[9:].all()
    alpha = np.concatenate([image, np.full((70, 90, 1), 255, np.uint8)], axis=2)
    alpha[:, :7, 3] = 0
    source = GeoSource(write_tif(tmp_path / "alpha.tif", alpha, photometric="RGB", alpha="YES"))
    assert source.bands == 3
    valid = source.read_window(0, 0, 70, 90)[1]
    assert not valid[:, :7].any()
    assert valid[:, 7:].all()


def test_scale_and_offset_are_applied(tmp_path):
    path = write_tif(tmp_path / "in.tif", np.full((70, 90, 2), 100, np.int16))
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (0.5, 2), (-10, 3)
    pixels = GeoSource(path, [2, 1]).read_window(0, 0, 1, 1)[0]
    np.testing.assert_array_equal(pixels[0, 0], [203, 40])


def test_bands_are_chosen_in_order(bundles, tmp_path):
    image = sar(70, 90)
    mixed = np.concatenate([image[..., 1:], image[..., :1] * 0, image[..., :1]], axis=2)
    write_tif(tmp_path / "in.tif", mixed)
    command(bundles / "sar", tmp_path / "in.tif", tmp_path / "out.tif", "--bands", "3,1")
    np.testing.assert_array_equal(
        read(tmp_path / "out.tif")[0][0], predict(image, model=load(bundles / "sar", "onnxruntime")).labels
    )


def test_bands_with_the_names_of_the_channels_in_another_order(bundles, tmp_path):
    image = sar(70, 90)
    path = write_tif(tmp_path / "in.tif", image[..., ::-1])
    with rasterio.open(path, "r+") as file:
        file.descriptions = ("VH", "VV")
    message = r"in\.tif: its bands are VH, VV in this order, wanted are VV, VH; choose them \(--bands 2,1\)"
    with pytest.raises(UserError, match=message):
        command(bundles / "sar", path, tmp_path / "out.tif")
    command(bundles / "sar", path, tmp_path / "out.tif", "--bands", "2,1")
    wanted = predict(image, model=load(bundles / "sar", "onnxruntime")).labels
    np.testing.assert_array_equal(read(tmp_path / "out.tif")[0][0], wanted)
    (tmp_path / "mosaic").mkdir()
    shutil.copy(path, tmp_path / "mosaic")
    with pytest.raises(UserError, match="its bands are VH, VV in this order"):
        command(bundles / "sar", tmp_path / "mosaic", tmp_path / "mosaic.tif")


def test_ground_control_points_are_kept(bundles, tmp_path, capsys):
    write_tif_of_points(tmp_path / "in.tif", sar(64, 64))
    assert command(bundles / "sar", tmp_path / "in.tif", tmp_path / "out.tif") == 0
    assert "CRS" not in capsys.readouterr().err
    with rasterio.open(tmp_path / "out.tif") as file:
        points, crs = file.gcps
    assert (len(points), crs) == (4, rasterio.CRS.from_epsg(4326))


def test_without_crs_it_works_and_says_so(bundles, tmp_path, capsys):
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        write_tif(tmp_path / "in.tif", sar(1, 1), crs=None, transform=None, tiled=False, blockysize=1)
    assert command(bundles / "sar", tmp_path / "in.tif", tmp_path / "out.tif") == 0
    assert "has no CRS, so the output has none" in capsys.readouterr().err
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        labels, profile = read(tmp_path / "out.tif")
    assert labels.shape == (1, 1, 1)
    assert profile["crs"] is None


def test_bundle_of_whole_images_is_noted(tmp_path, capsys):
    make_bundle(tmp_path / "bundle")
    write_tif(tmp_path / "in.tif", make_image("rgb", 0, (50, 50)))
    command(tmp_path / "bundle", tmp_path / "in.tif", tmp_path / "out.tif")
    assert "trained on whole images resized to 32×48" in capsys.readouterr().err


def damage(path, row):
    """Overwrite a compressed block in the middle."""
    with rasterio.open(path) as file:
        offset, size = (
            int(file.get_tag_item(f"BLOCK_{what}_1_{row}", "TIFF", bidx=1)) for what in ("OFFSET", "SIZE")
        )
    data = path.read_bytes()
    path.write_bytes(data[:offset] + b"\xff" * size + data[offset + size :])


def test_unreadable_block_is_named_and_the_run_goes_on_when_it_can_be_read(bundles, tmp_path):
    path = write_tif(tmp_path / "in.tif", sar(600, 200), compress="deflate")
    good, about = path.read_bytes(), path.stat()
    command(bundles / "sar", path, tmp_path / "whole.tif")
    damage(path, 5)  # rows 320 to 383
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))  # a disk that fails now and then
    place = r"in\.tif: rows 3\d\d to 3\d\d, columns \d+ to \d+ cannot be read \(.+\); .*--resume"
    with pytest.raises(UserError, match=place) as caught:
        command(bundles / "sar", path, tmp_path / "out.tif")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.tif").exists()
    path.write_bytes(good)
    with pytest.raises(UserError, match="because input changed since it was started"):
        command(bundles / "sar", path, tmp_path / "out.tif", "--resume")
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert command(bundles / "sar", path, tmp_path / "out.tif", "--resume") == 0
    assert (tmp_path / "out.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()


def test_interrupted_and_resumed_gives_the_same_file(bundles, tmp_path, monkeypatch, capsys):
    path = write_tif(tmp_path / "in.tif", sar(300, 200))
    command(bundles / "sar", path, tmp_path / "whole.tif")
    reading, calls = GeoSource.read_window, [0]

    def interrupted(self, *window):
        calls[0] += 1
        if calls[0] == 25:
            raise KeyboardInterrupt
        return reading(self, *window)

    with monkeypatch.context() as patch:
        patch.setattr(GeoSource, "read_window", interrupted)
        with pytest.raises(KeyboardInterrupt):
            command(bundles / "sar", path, tmp_path / "out.tif")
    with pytest.raises(UserError, match="because --overlap changed"):
        command(bundles / "sar", path, tmp_path / "out.tif", "--resume", "--overlap", "4")
    capsys.readouterr()
    assert command(bundles / "sar", path, tmp_path / "out.tif", "--resume") == 0
    assert (tmp_path / "out.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["in.tif", "out.tif", "whole.tif"]


def test_a_file_that_cannot_be_made_leaves_a_run_to_resume(bundles, tmp_path, monkeypatch):
    path = write_tif(tmp_path / "in.tif", sar(100, 200))
    with monkeypatch.context() as patch:
        patch.setattr(geotiff, "_fill", lambda *_: None)  # as with a full disk that GDAL does not report
        with pytest.raises(UserError, match=r"out\.tif: cannot be written \(it does not read back.*--resume"):
            command(bundles / "sar", path, tmp_path / "out.tif")
    assert not (tmp_path / "out.tif").exists()
    assert not list(tmp_path.glob(".*.tmp"))
    assert command(bundles / "sar", path, tmp_path / "out.tif", "--resume") == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: folder["bands"], r"has 1 band\(s\), the bundle wants 2"),
        (lambda folder: folder["text"], "is not a GeoTIFF that GDAL can read"),
        (lambda folder: folder["missing"], "no such file"),
    ],
)
def test_inputs_that_do_not_fit(bundles, tmp_path, change, message):
    (tmp_path / "text.tif").write_text("hello")
    files = {
        "bands": write_tif(tmp_path / "bands.tif", sar(70, 70)[..., :1]),
        "text": tmp_path / "text.tif",
        "missing": tmp_path / "missing.tif",
    }
    with pytest.raises(UserError, match=message) as caught:
        command(bundles / "sar", change(files), tmp_path / "out.tif")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.tif").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--bands", "1,4"), r"has bands 1 to 2, but \[1, 4\] were requested"),
        (("--bands", "one"), "--bands one: give numbers"),
        (("--overlap", "32"), "overlap is 32 pixels, tiles are 32×48"),
        (("--batch", "0"), "batch is 0"),
        (("--min-valid", "2"), "min-valid is 2.0"),
    ],
)
def test_bad_options(bundles, tmp_path, more, message):
    path = write_tif(tmp_path / "in.tif", sar(70, 70))
    with pytest.raises(UserError, match=message):
        command(bundles / "sar", path, tmp_path / "out.tif", *more)
    assert [one.name for one in tmp_path.iterdir()] == ["in.tif"]


def test_uint16_for_a_uint8_bundle(bundles, tmp_path):
    path = write_tif(tmp_path / "in.tif", make_image("rgb", 0, (70, 70)).astype(np.uint16))
    with pytest.raises(UserError, match="the raster is uint16, the bundle wants uint8"):
        command(bundles / "rgb", path, tmp_path / "out.tif")


def test_existing_outputs(bundles, tmp_path):
    path = write_tif(tmp_path / "in.tif", sar(70, 70))
    with pytest.raises(UserError, match=r"in\.tif: exists"):
        command(bundles / "sar", path, path)
    (tmp_path / "out_probabilities.tif").write_text("precious")
    with pytest.raises(UserError, match=r"out_probabilities\.tif: exists"):
        command(bundles / "sar", path, tmp_path / "out.tif", "--probabilities")


def test_without_rasterio_it_says_what_to_install(bundles, tmp_path, monkeypatch):
    (tmp_path / "in.tif").write_text("")
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(UserError, match=r"pip install 'edgedistill\[geo\]'"):
        command(bundles / "sar", tmp_path / "in.tif", tmp_path / "out.tif")
    assert geo.GeoSource  # the module itself imports without it
