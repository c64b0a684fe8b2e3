"""Training, `tiles`, `predict` and `predict-raster` see the same pixels and the same no data in the same files."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deploy.cli import main as deploy_main
from deploy.files import tiff
from deploy.files.images import read_image, read_mask, write_png
from deploy.raster.geo import GeoSource
from distill.config import DataConfig
from distill.data.datasets.folder import open_folder
from distill.tiles import cutting
from distill.tiles.cutting import Tiling, cut_folder
from tests.deploy.files.geotiffs import write_geotiff
from tests.deploy.tiny import make_bundle, make_image

pytest.importorskip("rasterio", reason="rasterio is not installed (pip install -e '.[geo]')")
H, W = 32, 48
HOLE = np.zeros((H, W), bool)
HOLE[:20, :30] = True
SAR, RGB = make_image("sar"), make_image("rgb").clip(1)


def holed(array: np.ndarray, value: float) -> np.ndarray:
    return np.where(HOLE[..., None], np.array(value, array.dtype), array)


def palette(path: Path) -> None:
    image = Image.fromarray(RGB[..., 0])
    image.putpalette(RGB.reshape(-1)[: 3 * 256].tobytes())
    image.save(path)


FILES = {
    "float32, no-data value": lambda path: write_geotiff(path, holed(SAR, -9999), nodata=-9999),
    "float32, NaN": lambda path: write_geotiff(path, holed(SAR, np.nan)),
    "float32, mask": lambda path: write_geotiff(path, SAR, mask=~HOLE),
    "int16, scale and offset": lambda path: write_geotiff(
        path, holed((SAR * 100).astype(np.int16), -32768), nodata=-32768, scales=(0.01, 0.02), offsets=(0, 19)
    ),
    "uint16, NODATA_VALUES": lambda path: write_geotiff(
        path, holed((SAR + 60).clip(1).astype(np.uint16), 0), tags={"NODATA_VALUES": "0 0"}
    ),
    "uint8, no-data value": lambda path: write_geotiff(path, holed(RGB, 0), nodata=0, photometric="rgb"),
    "uint8, mask": lambda path: write_geotiff(path, RGB, mask=~HOLE, photometric="rgb"),
    "uint8, alpha": lambda path: Image.fromarray(
        np.dstack([RGB, np.where(HOLE, 0, 255).astype(np.uint8)])
    ).save(path),
    "palette": palette,
}


def folder_of(root: Path, write) -> Path:
    """The file as training and as validation image, with masks of two classes."""
    for split in ("train", "val"):
        (root / split / "images").mkdir(parents=True)
        write(root / split / "images" / "a.tif")
        write_png(root / split / "masks" / "a.png", (np.arange(H * W).reshape(H, W) % 2).astype(np.uint8))
    (root / "classes.json").write_text(json.dumps(["even", "odd"]))
    return root


def predicted(command: str, bundle: Path, path: Path, *out: str, folder: Path, labels: str) -> np.ndarray:
    assert deploy_main([command, str(bundle), str(path), *out, "--backend", "onnxruntime"]) == 0
    [file] = folder.glob(labels)
    return read_mask(file)


@pytest.mark.parametrize("name", FILES)
def test_all_see_the_same(name, tmp_path):
    hole = np.zeros_like(HOLE) if name == "palette" else HOLE
    root = folder_of(tmp_path / "data", FILES[name])
    path = root / "train" / "images" / "a.tif"
    pixels = read_image(path).astype(np.float32)
    np.testing.assert_array_equal(np.isnan(pixels).any(axis=2), hole)

    sample = open_folder(DataConfig("folder", root=root), 0).train[0]
    np.testing.assert_array_equal(sample.image.numpy(), pixels.transpose(2, 0, 1))
    np.testing.assert_array_equal(sample.valid.numpy(), ~hole)

    window, known = GeoSource(path).read_window(0, 0, H, W)
    known = known & np.isfinite(window).all(axis=2)
    np.testing.assert_array_equal(known, ~hole)
    np.testing.assert_array_equal(window[known], pixels[known])

    cut_folder(root, tmp_path / "tiles", Tiling((H, W), (H, W)))
    tile = open_folder(DataConfig("folder", root=tmp_path / "tiles"), 0).train[0]
    np.testing.assert_array_equal(tile.image.numpy(), pixels.transpose(2, 0, 1))
    np.testing.assert_array_equal(tile.label.numpy(), sample.label.numpy())
    with (tmp_path / "tiles" / "tiles.csv").open() as file:
        assert float(next(csv.DictReader(file))["no data"]) == pytest.approx(hole.mean(), abs=1e-6)

    bundle = tmp_path / "bundle"
    make_bundle(bundle, "rgb" if pixels.shape[2] == 3 else "sar", resize="tile")
    out, tif = tmp_path / "out", tmp_path / "out.tif"
    whole = predicted("predict", bundle, path, "--out", str(out), folder=out, labels="a_mask.*")
    raster = predicted("predict-raster", bundle, path, str(tif), folder=tmp_path, labels="out.tif")
    np.testing.assert_array_equal(whole == 255, hole)
    np.testing.assert_array_equal(raster, whole)


@pytest.mark.parametrize("name", [name for name in FILES if "alpha" not in name])
def test_tiles_without_rasterio_hold_the_same(name, tmp_path, monkeypatch):
    root = folder_of(tmp_path / "data", FILES[name])
    whole = open_folder(DataConfig("folder", root=root), 0).train[0]
    for module in (cutting, tiff):
        monkeypatch.setattr(module, "find_spec", lambda name: name == "tifffile" or None)
    cut_folder(root, tmp_path / "tiles", Tiling((H, W), (H, W)))
    tile = open_folder(DataConfig("folder", root=tmp_path / "tiles"), 0).train[0]
    np.testing.assert_array_equal(tile.image.numpy(), whole.image.numpy())
    np.testing.assert_array_equal(tile.valid.numpy(), whole.valid.numpy())


def test_tiles_keep_the_names_of_bands_and_four_bands_of_bytes(tmp_path):
    four = np.dstack([RGB, holed(RGB, 0)[..., 0]])
    root = folder_of(tmp_path / "data", lambda path: write_geotiff(path, four, photometric="minisblack"))
    cut_folder(root, tmp_path / "tiles", Tiling((H, W), (H, W)))
    np.testing.assert_array_equal(read_image(next((tmp_path / "tiles/train/images").iterdir())), four)
