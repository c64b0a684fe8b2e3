"""Mosaics of GeoTIFFs: the same labels as the raster in one file, and what does not fit together is refused."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from deploy.cli import main
from deploy.errors import UserError
from deploy.raster.mosaic import mosaic_of
from deploy.raster.opening import find_raster
from tests.deploy.raster.mosaics import cut_up, place
from tests.deploy.raster.networks import sar, write_tif
from tests.deploy.tiny import make_bundle, make_image

pytest.importorskip("rasterio", reason="rasterio is not installed here (pip install -e '.[geo]')")

ROWS, COLUMNS = (slice(0, 100), slice(90, 230)), (slice(0, 70), slice(70, 170), slice(150, 260))


def window(path: Path, row: int, col: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    with closing(find_raster(path, None).open()) as source:
        return source.read_window(row, col, height, width)


@pytest.mark.parametrize("kind", ["sar", "rgb"])
def test_a_mosaic_gives_the_same_bytes_as_the_raster_in_one_file(tmp_path, kind):
    make_bundle(tmp_path / "bundle", kind, resize="tile")
    image = make_image(kind, 1, (230, 260))
    write_tif(tmp_path / "whole.tif", image)
    cut_up(tmp_path / "parts", image, ROWS, COLUMNS)
    for name in ("whole.tif", "parts"):
        arguments = [str(tmp_path / name), str(tmp_path / f"{name}-labels.tif"), "--backend", "onnxruntime"]
        assert main(["predict-raster", str(tmp_path / "bundle"), *arguments]) == 0
    assert (tmp_path / "whole.tif-labels.tif").read_bytes() == (tmp_path / "parts-labels.tif").read_bytes()


def test_the_later_file_counts_where_it_has_data(tmp_path):
    image = sar(40, 60)
    later = image[:, 20:60] + 100
    later[:, 20:30] = -9999
    later[0, 0] = np.nan
    write_tif(tmp_path / "a.tif", image[:, :50], nodata=-9999)
    write_tif(tmp_path / "b.tif", later, transform=place(0, 20), nodata=-9999)
    pixels, known = window(tmp_path, 0, 0, 40, 60)
    np.testing.assert_array_equal(pixels[:, :20], image[:, :20])
    np.testing.assert_array_equal(pixels[1:, 20:40], later[1:, :20])
    np.testing.assert_array_equal(pixels[:, 40:50], image[:, 40:50])
    np.testing.assert_array_equal(pixels[0, 20], image[0, 20])
    assert known.all()


def test_gaps_have_no_data(tmp_path):
    write_tif(tmp_path / "a.tif", make_image(size=(20, 30)).clip(1))
    write_tif(tmp_path / "b.tif", make_image(size=(20, 30)).clip(1), transform=place(-30, -40))
    pixels, known = window(tmp_path, 0, 0, 50, 70)
    assert pixels.dtype == np.uint8
    assert known[:20, :30].all()
    assert known[30:, 40:].all()
    assert known.sum() == 2 * 20 * 30
    with closing(find_raster(tmp_path, None).open()) as source:
        assert (source.place.transform.c, source.place.transform.f) == (500_000 - 400, 5_000_000 + 300)
        assert source.place.crs.to_epsg() == 32632


def test_only_the_files_of_a_window_are_kept_and_few_are_open(tmp_path):
    files = cut_up(tmp_path, sar(20, 400), [slice(0, 20)], [slice(i, i + 10) for i in range(0, 400, 10)])
    mosaic = mosaic_of(tmp_path, files, [2, 1])
    part = mosaic.within(0, 95, 20, 10)
    assert [one.col for one in part.members] == [90, 100]
    with closing(mosaic.open()) as source:
        pixels = source.read_window(0, 0, 20, 400)[0]
        assert len(source._open) == 16
    np.testing.assert_array_equal(pixels, sar(20, 400)[..., ::-1])
    with closing(part.open()) as source:
        np.testing.assert_array_equal(source.read_window(0, 95, 20, 10)[0], pixels[:, 95:105])
    assert mosaic.open().fingerprint() != part.open().fingerprint()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            {"transform": (0, 0.4)},
            r"b\.tif: lies 0\.00 rows and 0\.40 columns off the pixels of a\.tif; gdalwarp -tap",
        ),
        (
            {"crs": "EPSG:32633"},
            r"b\.tif: its coordinate system is EPSG:32633, that of a\.tif EPSG:32632; gdalwarp",
        ),
        ({"pixel": 20}, r"b\.tif: its pixels measure 20×20, those of a\.tif 10×10; gdalwarp -tap -tr 10 10"),
        ({"image": sar(20, 30)[..., :1]}, r"b\.tif: has 1 band\(s\) of float32, a\.tif 2 of float32"),
        (
            {"image": sar(20, 30).astype(np.int16).astype(np.uint8)},
            r"b\.tif: has 2 band\(s\) of uint8, a\.tif 2",
        ),
    ],
)
def test_files_that_do_not_fit_together(tmp_path, other, message):
    import rasterio

    write_tif(tmp_path / "a.tif", sar(20, 30))
    shift = other.get("transform", (0, 30))
    profile = {"transform": place(*shift), "crs": other.get("crs", "EPSG:32632")}
    if "pixel" in other:
        profile["transform"] = rasterio.Affine(20, 0, 500_300, 0, -20, 5_000_000)
    write_tif(tmp_path / "b.tif", other.get("image", sar(20, 30)), **profile)
    with pytest.raises(UserError, match=message) as caught:
        find_raster(tmp_path, None)
    assert "\n" not in str(caught.value)


def test_files_without_a_place_and_folders_without_files(tmp_path):
    with pytest.raises(UserError, match=r"holds no GeoTIFF; looked for \.tif"):
        find_raster(tmp_path, None)
    write_tif(tmp_path / "a.tif", sar(20, 30))
    gcps = {"transform": None, "gcps": []}
    import rasterio

    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        write_tif(tmp_path / "b.tif", sar(20, 30), **gcps)
    with pytest.raises(UserError, match=r"b\.tif: has no transform, so its place in a mosaic is unknown"):
        find_raster(tmp_path, None)


def test_a_file_that_was_replaced_after_planning_is_refused(tmp_path):
    files = cut_up(tmp_path, sar(20, 60), [slice(0, 20)], [slice(0, 30), slice(30, 60)])
    mosaic = mosaic_of(tmp_path, files, None)
    write_tif(files[1], make_image(size=(20, 30)), transform=place(0, 30))
    with (
        closing(mosaic.open()) as source,
        pytest.raises(UserError, match=r"part-0-1\.tif: has 3 band\(s\) of uint8, others"),
    ):
        source.read_window(0, 0, 20, 60)
