"""Files of segmentation results: where GeoTIFFs lie, and files of many images together."""

import json
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


@pytest.mark.filterwarnings("default::RuntimeWarning")
def test_masks_of_geotiffs_say_that_they_have_no_place(bundle, tmp_path, capsys):
    predict(bundle, write_tiff(tmp_path / "scene.tif", **UTM), "mask")
    [line] = [one for one in capsys.readouterr().err.splitlines() if one.startswith("warning")]
    assert line.endswith("for labels as GeoTIFF use edgedistill predict-raster")


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
