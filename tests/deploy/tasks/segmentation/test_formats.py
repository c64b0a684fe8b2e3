"""Files of segmentation results: where GeoTIFFs lie, and files of many images together."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio import Affine
from rasterio.control import GroundControlPoint
from shapely.geometry import shape

from deploy.cli import main
from deploy.errors import UserError
from deploy.files.images import write_png
from deploy.inference.image_files import output_names
from tests.deploy.tiny import make_bundle

RED = np.zeros((32, 48, 3), np.uint8)
RED[..., 0] = 255
UTM = {"crs": "EPSG:32632", "transform": Affine(10, 0, 500_000, 0, -10, 5_200_000)}
"""Its left edge is the central meridian, 9° east."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("formats") / "bundle"
    make_bundle(folder)
    return folder


def write_tiff(path: Path, **place) -> Path:
    with rasterio.open(path, "w", "GTiff", 48, 32, 3, dtype="uint8", **place) as file:
        file.write(RED.transpose(2, 0, 1))
    return path


def predict(bundle: Path, images: Path, formats: str) -> Path:
    """The folder of the results."""
    out = (images if images.is_dir() else images.parent) / "out"
    assert main(["predict", str(bundle), str(images), "--out", str(out), "--save", formats]) == 0
    return out


def test_outlines_of_a_geotiff_are_longitude_and_latitude(bundle, tmp_path):
    out = predict(bundle, write_tiff(tmp_path / "scene.tif", **UTM), "geojson")
    [region] = json.loads((out / "scene.geojson").read_text())["features"]
    west, south, east, north = shape(region["geometry"]).bounds
    assert west == pytest.approx(9, abs=1e-9)
    assert north == pytest.approx(46.9535, abs=5e-4)  # by the length of the meridian
    degree = 111_200  # meters
    assert (north - south) * degree == pytest.approx(320, rel=0.01)
    assert (east - west) * degree * np.cos(np.radians(north)) == pytest.approx(480, rel=0.01)


@pytest.mark.parametrize("place", [{}, {"transform": UTM["transform"]}, {"crs": UTM["crs"]}])
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_without_a_place_they_are_pixels(bundle, tmp_path, place):
    out = predict(bundle, write_tiff(tmp_path / "scene.tif", **place), "geojson,mask")
    [region] = json.loads((out / "scene.geojson").read_text())["features"]
    assert shape(region["geometry"]).bounds == (0, 0, 48, 32)


def test_ground_control_points_are_refused(bundle, tmp_path):
    corners = ((0, 0), (0, 48), (32, 0))
    points = [GroundControlPoint(row, col, 9 + col / 100, 47 - row / 100) for row, col in corners]
    path = write_tiff(tmp_path / "scene.tif", gcps=points, crs="EPSG:4326")
    with pytest.raises(UserError, match=r"scene\.tif: has ground control points only; rectify it first"):
        predict(bundle, path, "geojson")


def read_back(path: Path) -> tuple[np.ndarray, dict]:
    """The pixels of a GeoTIFF with one band, and what it says about them."""
    with rasterio.open(path) as file:
        about = {"colors": file.colormap(1), "tags": file.tags(), "bands": file.descriptions}
        about |= {"crs": file.crs, "transform": file.transform, "gcps": file.gcps, "nodata": file.nodata}
        return file.read(1), about


def test_masks_of_geotiffs_are_those_of_predict_raster(bundle, tmp_path):
    path = tmp_path / "scene.tif"
    with rasterio.open(path, "w", "GTiff", 48, 32, 3, dtype="uint8", nodata=7, **UTM) as file:
        file.write(np.where(np.arange(48) < 5, 7, RED.transpose(2, 0, 1)).astype(np.uint8))
    out = predict(bundle, path, "mask,overlay")
    assert {one.name for one in out.glob("scene*")} == {"scene_mask.tif", "scene_overlay.png"}
    labels, about = read_back(out / "scene_mask.tif")
    assert about["crs"] == UTM["crs"]
    assert about["transform"] == UTM["transform"]
    assert about["nodata"] == 255
    assert labels.shape == (32, 48)
    np.testing.assert_array_equal(labels == 255, np.broadcast_to(np.arange(48) < 5, (32, 48)))
    assert main(["predict-raster", str(bundle), str(path), str(tmp_path / "labels.tif")]) == 0
    whole, expected = read_back(tmp_path / "labels.tif")
    np.testing.assert_array_equal(labels == 255, whole == 255)
    assert about == expected


def test_masks_keep_ground_control_points(bundle, tmp_path):
    corners = ((0, 0), (0, 48), (32, 0))
    points = [GroundControlPoint(row, col, 9 + col / 100, 47 - row / 100) for row, col in corners]
    out = predict(bundle, write_tiff(tmp_path / "scene.tif", gcps=points, crs="EPSG:4326"), "mask")
    found, crs = read_back(out / "scene_mask.tif")[1]["gcps"]
    assert [(one.row, one.col, one.x, one.y) for one in found] == [
        (one.row, one.col, one.x, one.y) for one in points
    ]
    assert crs == "EPSG:4326"


def test_a_resumed_folder_has_its_geotiffs(bundle, tmp_path, capsys):
    path = write_tiff(tmp_path / "scene.tif", **UTM)
    predict(bundle, path, "mask")
    out = str(tmp_path / "out")
    assert main(["predict", str(bundle), str(path), "--out", out, "--save", "mask", "--resume"]) == 0
    assert "1 of 1 images were done before" in capsys.readouterr().out


@pytest.mark.filterwarnings("default::RuntimeWarning")
@pytest.mark.parametrize(("place", "said"), [(UTM, True), ({}, False)])
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_without_rasterio_masks_are_png_and_say_so(bundle, tmp_path, capsys, monkeypatch, place, said):
    path = write_tiff(tmp_path / "scene.tif", **place)
    monkeypatch.setitem(sys.modules, "rasterio", None)
    out = predict(bundle, path, "mask")
    assert (out / "scene_mask.png").exists()
    lines = [one for one in capsys.readouterr().err.splitlines() if one.startswith("warning")]
    assert [one.endswith("for masks as GeoTIFF: pip install 'edgedistill[geo]'") for one in lines] == [
        True
    ] * said


def test_coco_files_of_a_folder_can_be_put_together(bundle, tmp_path):
    blue = RED[..., ::-1].copy()
    blue[:10] = RED[:10]
    for name, image in (("a", RED), ("b", blue)):
        write_png(tmp_path / f"{name}.png", image)
    out = predict(bundle, tmp_path, "coco")
    parts = [json.loads((out / f"{name}_coco.json").read_text()) for name in "ab"]
    images, annotations = ([one for part in parts for one in part[key]] for key in ("images", "annotations"))
    assert [one["file_name"] for one in images] == ["a.png", "b.png"]
    assert len({one["id"] for one in images}) == 2
    assert len({one["id"] for one in annotations}) == 3
    assert [one["image_id"] for one in annotations] == [images[0]["id"], *[images[1]["id"]] * 2]
    assert max(one["id"] for one in annotations) < 2**53  # JSON of other programs


def test_results_of_two_images_are_never_one_file(bundle, tmp_path):
    """The JSON of a_coco.png was the COCO file of a.png."""
    for name in ("a", "a_coco", "a_mask"):
        write_png(tmp_path / f"{name}.png", RED)
    out = predict(bundle, tmp_path, "mask,overlay,beside,probabilities,npz,json,coco,geojson")
    assert len(list(out.glob("a*"))) == 3 * 8
    assert output_names([tmp_path / "a_coco.png", tmp_path / "a.png"]) == ["a_coco_", "a"]
