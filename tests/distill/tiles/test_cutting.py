"""Large images cut into tiles: each pixel where it was, resumable, with its georeference."""

import csv
import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.errors import UserError
from deploy.files.images import write_png
from distill import cli
from distill.config import DataConfig
from distill.data.datasets.folder import open_folder
from distill.tiles import cutting
from distill.tiles.cutting import Tiling, cut_folder, starts

CLASSES = [{"name": "land", "color": [1, 2, 3], "value": 10}, {"name": "water", "value": 20}]
SMALL = Tiling((16, 16), (16, 16))


@given(st.integers(1, 100), st.integers(1, 40), st.integers(1, 40))
def test_tiles_lie_in_the_image_and_leave_nothing_out(length, size, stride):
    found = starts(length, size, stride)
    assert found[0] == 0
    assert found == sorted(set(found))
    assert all(start + size <= max(length, size) for start in found)
    assert found[-1] + size >= length
    if stride <= size:
        assert all(b - a <= stride for a, b in pairwise(found))
    assert all(start % stride == 0 for start in found[:-1])


def make_folder(root, names=("a", "b", "c"), size=(40, 52), channels=1):
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in names:
            image = rng.normal(size=(*size, channels)).astype(np.float32)
            image[:10, :30, 0] = np.nan
            for folder in ("images", "masks"):
                (root / split / folder).mkdir(parents=True, exist_ok=True)
            np.save(root / split / "images" / f"{name}.npy", image)
            write_png(
                root / split / "masks" / f"{name}.png", rng.choice([10, 20, 255], size).astype(np.uint8)
            )
    (root / "classes.json").write_text(json.dumps(CLASSES))
    return root


def rows_of(folder):
    with (folder / "tiles.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("channels", [1, 4])
def test_tiles_hold_the_pixels_and_labels_of_their_place(tmp_path, channels):
    source = make_folder(tmp_path / "src", channels=channels)
    results = cut_folder(source, tmp_path / "dst", SMALL)
    assert [(it.split, it.images, it.tiles) for it in results] == [("train", 3, 36), ("val", 3, 36)]
    before, after = (open_folder(DataConfig("folder", root=root), 0) for root in (source, tmp_path / "dst"))
    assert after.classes == before.classes
    assert after.test is after.val
    assert after.tested_on == "val"
    samples = {sample.id: sample for sample in map(before.train.__getitem__, range(3))}
    tiles = {after.train[index].id: after.train[index] for index in range(36)}
    rows = [row for row in rows_of(tmp_path / "dst") if row["split"] == "train"]
    assert len(rows) == 36
    for row in rows:
        top, left = int(row["top"]), int(row["left"])
        whole, tile = samples[row["source"].removesuffix(".npy")], tiles[row["tile"]]
        place = slice(top, top + 16), slice(left, left + 16)
        known = np.isfinite(whole.image[(slice(None), *place)].numpy()).all(axis=0)
        image = np.where(known, whole.image[(slice(None), *place)].numpy(), np.nan)
        np.testing.assert_array_equal(tile.image.numpy(), image)
        np.testing.assert_array_equal(tile.label.numpy(), whole.label[place].numpy())
        assert float(row["no data"]) == pytest.approx(1 - known.mean(), abs=1e-6)
        water = (tile.label[tile.valid] == 1).float().mean() if tile.valid.any() else None
        assert row["water"] == ("" if water is None else f"{water:.6f}")
    assert {(int(row["top"]), int(row["left"])) for row in rows} == {
        (top, left) for top in (0, 16, 24) for left in (0, 16, 32, 36)
    }


def test_tiles_with_too_little_data_are_left_out(tmp_path):
    source = make_folder(tmp_path / "src", names=("a",))
    cut_folder(source, tmp_path / "some", Tiling((10, 10), (10, 10), max_no_data=0.5))
    shares = [float(row["no data"]) for row in rows_of(tmp_path / "some")]
    assert max(shares) <= 0.5
    cut_folder(source, tmp_path / "all", Tiling((10, 10), (10, 10)))
    assert all(float(row["no data"]) < 1 for row in rows_of(tmp_path / "all"))
    assert len(rows_of(tmp_path / "all")) == 2 * (4 * 6 - 3)  # three tiles without any


def test_an_interrupted_cutting_goes_on_and_new_images_are_taken_in(tmp_path, monkeypatch):
    source = make_folder(tmp_path / "src")
    cut_folder(source, tmp_path / "straight", SMALL)
    cut, calls, made = cutting._write, [], []

    def killed(*args):
        calls.append(args[1])
        if len(calls) == 17 and not made:
            raise KeyboardInterrupt
        cut(*args)

    monkeypatch.setattr(cutting, "_write", killed)
    with pytest.raises(KeyboardInterrupt):
        cut_folder(source, tmp_path / "dst", SMALL)
    assert not (tmp_path / "dst" / "tiles.csv").exists()
    cut_folder(source, tmp_path / "dst", SMALL)
    assert len(calls) == 17 + 72 - 12  # the first image was not cut again
    files = {path.relative_to(tmp_path / "straight") for path in (tmp_path / "straight").rglob("*")}
    assert files == {path.relative_to(tmp_path / "dst") for path in (tmp_path / "dst").rglob("*")}
    for name in files:
        if (tmp_path / "dst" / name).is_file():
            assert (tmp_path / "dst" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
    calls.clear()
    made.append(make_folder(source, names=("d",)))
    cut_folder(source, tmp_path / "dst", SMALL)
    assert len(calls) == 24
    assert len(rows_of(tmp_path / "dst")) == 96


def test_all_tiles_of_an_image_are_in_one_split(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / "src" / folder).mkdir(parents=True)
    for index in range(30):
        write_png(tmp_path / "src" / "images" / f"{index}.png", np.full((20, 20, 3), index, np.uint8))
        write_png(
            tmp_path / "src" / "masks" / f"{index}.png", np.arange(400, dtype=np.uint8).reshape(20, 20) % 2
        )
    results = cut_folder(tmp_path / "src", tmp_path / "dst", Tiling((10, 10), (10, 10)))
    assert [it.split for it in results] == ["train", "val", "test"]
    assert sum(it.images for it in results) == 30
    assert all(it.tiles == 4 * it.images for it in results)
    data = open_folder(DataConfig("folder", root=tmp_path / "dst"), 0)
    assert [info.name for info in data.classes] == ["class_0", "class_1"]
    assert data.optical


def write_tif(path, array, nodata, left=500_000.0, top=4_000_000.0):
    rasterio = pytest.importorskip("rasterio")
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "height": array.shape[1], "width": array.shape[2], "count": array.shape[0]}
    transform = rasterio.Affine(10, 0, left, 0, -10, top)
    with rasterio.open(
        path, "w", dtype=array.dtype, crs="EPSG:32633", transform=transform, nodata=nodata, **profile
    ) as file:
        file.write(array)


@pytest.mark.parametrize("bands", [1, 2, 5])
def test_geotiffs_keep_their_place(tmp_path, bands):
    rasterio = pytest.importorskip("rasterio")
    rng = np.random.default_rng(1)
    image = rng.normal(-12, 4, (bands, 40, 52)).astype(np.float32)
    image[0, :4, :4] = -9999
    for split in ("train", "val"):
        write_tif(tmp_path / "src" / split / "images" / "a.tif", image, -9999)
        write_tif(
            tmp_path / "src" / split / "masks" / "a.tif", rng.integers(0, 2, (1, 40, 52), np.uint8), None
        )
    cut_folder(tmp_path / "src", tmp_path / "dst", SMALL)
    with rasterio.open(tmp_path / "dst" / "train" / "images" / "a_r00024_c00036.tif") as file:
        assert file.crs.to_epsg() == 32633
        assert (file.transform.c, file.transform.f) == (500_360.0, 3_999_760.0)
        np.testing.assert_array_equal(file.read(), image[:, 24:, 36:])
    with rasterio.open(tmp_path / "dst" / "train" / "masks" / "a_r00024_c00036.tif") as file:
        assert file.transform.c == 500_360.0
    data = open_folder(DataConfig("folder", root=tmp_path / "dst"), 0)
    first = data.train[0]
    assert first.id == "a_r00000_c00000"
    assert not first.valid[:4, :4].any()
    assert first.valid.sum() == 16 * 16 - 16
    assert first.image.shape == (bands, 16, 16)


def test_tiffs_without_rasterio(tmp_path, monkeypatch):
    """They are read as a whole, and their tiles have no georeference."""
    image = np.random.default_rng(1).integers(0, 255, (3, 20, 20), np.uint8)
    for split in ("train", "val"):
        write_tif(tmp_path / "src" / split / "images" / "a.tif", image, None)
        write_tif(tmp_path / "src" / split / "masks" / "a.tif", image[:1] % 2, None)
    monkeypatch.setattr(cutting, "find_spec", lambda _: None)
    cut_folder(tmp_path / "src", tmp_path / "dst", Tiling((10, 10), (10, 10)))
    data = open_folder(DataConfig("folder", root=tmp_path / "dst"), 0)
    assert len(list((tmp_path / "dst" / "train" / "images").glob("*.png"))) == 4
    np.testing.assert_array_equal(data.train[3].image.numpy(), image[:, 10:, 10:])


def test_mistakes(tmp_path):
    source = make_folder(tmp_path / "src", names=("a",))
    cut_folder(source, tmp_path / "dst", SMALL)
    with pytest.raises(UserError, match=r"was cut with size \[16, 16\], not \[8, 8\]; use another folder"):
        cut_folder(source, tmp_path / "dst", Tiling((8, 8), (8, 8)))
    with pytest.raises(UserError, match="holds other files; give a new folder"):
        cut_folder(source, tmp_path / "src", SMALL)
    write_png(source / "train" / "masks" / "a.png", np.full((9, 9), 10, np.uint8))
    with pytest.raises(UserError, match=r"a\.png: is 9×9 pixels, its image 40×52"):
        cut_folder(source, tmp_path / "other", SMALL)


def test_the_command(tmp_path, capsys):
    source = make_folder(tmp_path / "src", names=("a",))
    command = ["tiles", str(source), str(tmp_path / "dst")]
    assert cli.main([*command, "--size", "16", "20", "--stride", "8"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("train: ")
    assert rows_of(tmp_path / "dst")[0]["width"] == "20"
    with pytest.raises(UserError, match="--size 0: give a side"):
        cli.main([*command, "--size", "0"])
    with pytest.raises(UserError, match="--max-no-data 50"):
        cli.main([*command, "--max-no-data", "50"])
