"""Images of many bands: TIFF by either library, SAR data sets, the choice of channels, and what users do wrong."""

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

import deploy
from deploy.cli import main
from deploy.errors import UserError
from deploy.files import tiff as rasters
from deploy.files.images import read_mask, write_png
from deploy.files.tiff import band_names, read_bands
from deploy.raster.geo import GeoSource, gdal
from distill.config import DataConfig
from distill.data.channels import choose_channels
from distill.data.registry import open_splits
from distill.data.stats import compute_stats
from tests.deploy.tiny import make_bundle, make_image

VOID = 255


@pytest.fixture(params=["rasterio", "tifffile"])
def library(request, monkeypatch):
    if request.param == "tifffile":
        monkeypatch.setattr(rasters, "find_spec", lambda name: name == "tifffile" or None)
    return request.param


def bands(count: int = 2, dtype: str = "float32", size: tuple[int, int] = (6, 8)) -> np.ndarray:
    """H×W×C of different numbers."""
    return (np.arange(count * size[0] * size[1]).reshape(*size, count) - 20).astype(dtype)


def write_tiff(path: Path, array: np.ndarray, nodata: float | None = None, planar: bool = True) -> None:
    """H×W×C, each band in a plane of its own unless told otherwise; no georeference."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tags = [] if nodata is None else [(42113, "s", 0, str(nodata), True)]
    if array.shape[2] == 1:
        tifffile.imwrite(path, array[..., 0], photometric="minisblack", extratags=tags, metadata=None)
        return
    data = array.transpose(2, 0, 1) if planar else array
    config = "separate" if planar else "contig"
    tifffile.imwrite(path, data, photometric="minisblack", planarconfig=config, extratags=tags, metadata=None)


@pytest.mark.parametrize("planar", [True, False])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32", "float64"])
def test_any_bands_and_numbers(library, tmp_path, dtype, planar):
    array = bands(5, dtype)
    write_tiff(tmp_path / "a.tif", array, planar=planar)
    read = read_bands(tmp_path / "a.tif")
    assert read.dtype == (dtype if dtype in ("uint8", "uint16") else "float32")
    np.testing.assert_array_equal(read, array.astype(read.dtype))


@pytest.mark.parametrize(("dtype", "nodata"), [("int16", -32768), ("uint16", 3), ("float32", -9999.0)])
def test_the_number_that_means_no_data_becomes_nan(library, tmp_path, dtype, nodata):
    array = bands(2, dtype)
    array[1, 2, 1] = nodata
    write_tiff(tmp_path / "a.tif", array, nodata)
    read = read_bands(tmp_path / "a.tif")
    np.testing.assert_array_equal(np.isnan(read), array == nodata)
    assert np.isnan(read[1, 2, 1])
    np.testing.assert_array_equal(read[~np.isnan(read)], array[array != nodata])


def test_a_byte_is_none_where_all_bands_are(library, tmp_path):
    array = np.full((6, 8, 2), 9, np.uint8)
    array[1, 2], array[3, 4, 0] = 0, 0
    write_tiff(tmp_path / "a.tif", array, 0)
    read = read_bands(tmp_path / "a.tif")
    np.testing.assert_array_equal(np.isnan(read).all(axis=2), (array == 0).all(axis=2))
    assert np.isnan(read).sum() == 2


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("nodata", [None, 7])
@pytest.mark.parametrize("scaled", [True, False])
def test_the_same_numbers_as_read_by_windows(library, tmp_path, dtype, nodata, scaled):
    array = bands(3, dtype, (5, 7))
    array[2, 3] = 7
    with (
        gdal() as rasterio,
        rasterio.open(
            tmp_path / "a.tif", "w", "GTiff", 7, 5, 3, dtype=dtype, nodata=nodata, photometric="minisblack"
        ) as file,
    ):
        file.write(array.transpose(2, 0, 1))
        if scaled:
            file.scales, file.offsets = (0.5, 1, 2), (0, 3, -1)
    pixels, valid = GeoSource(tmp_path / "a.tif").read_window(0, 0, 5, 7)
    read = read_bands(tmp_path / "a.tif")
    np.testing.assert_array_equal(np.isnan(read.astype(float)).any(axis=2), ~valid)
    np.testing.assert_array_equal(read[valid], pixels[valid])


def test_predict_reads_what_training_read(tmp_path):
    make_bundle(tmp_path / "bundle", "sar")
    image = make_image("sar")
    image[:3] = -9999
    write_tiff(tmp_path / "images" / "a.tif", image, -9999)
    out = tmp_path / "out"
    assert main(["predict", str(tmp_path / "bundle"), str(tmp_path / "images"), "--out", str(out)]) == 0
    labels = read_mask(out / "a_mask.png")
    assert (labels[:3] == VOID).all()
    image[:3] = np.nan
    np.testing.assert_array_equal(labels, deploy.load(tmp_path / "bundle")(image).labels)


def test_a_device_without_either_library(tmp_path, monkeypatch):
    monkeypatch.setattr(rasters, "find_spec", lambda name: None)
    write_tiff(tmp_path / "a.tif", bands(1, "uint8"))
    np.testing.assert_array_equal(read_bands(tmp_path / "a.tif"), bands(1, "uint8"))
    write_tiff(tmp_path / "b.tif", bands(2, "float32"))
    with pytest.raises(UserError, match=r"b\.tif: .*save .* as \.npy"):
        read_bands(tmp_path / "b.tif")


def test_one_band_and_one_pixel(library, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.array([[7]], np.int16), metadata=None)
    assert read_bands(tmp_path / "a.tif").tolist() == [[[7.0]]]


def test_a_damaged_file_is_named(library, tmp_path):
    write_tiff(tmp_path / "a.tif", bands(2, size=(60, 60)))
    whole = (tmp_path / "a.tif").read_bytes()
    for kept in (0, 5, len(whole) // 2):
        (tmp_path / "cut.tif").write_bytes(whole[:kept])
        with pytest.raises(UserError, match=r"cut\.tif: corrupt image, cannot be read as TIFF"):
            read_bands(tmp_path / "cut.tif")
    with pytest.raises(UserError, match=r"gone\.tif: no such file"):
        read_bands(tmp_path / "gone.tif")


def test_bands_that_differ_in_size(tmp_path, monkeypatch):
    monkeypatch.setattr(rasters, "find_spec", lambda name: name == "tifffile" or None)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(np.zeros((6, 8), np.float32))
        writer.write(np.zeros((3, 4), np.float32))
    with pytest.raises(UserError, match=r"a\.tif: its bands differ in size"):
        read_bands(tmp_path / "a.tif")


def folder_of(root: Path, count: int = 4, label: np.ndarray | None = None) -> None:
    mask = np.tile(np.array([[0, 1]], np.uint8), (6, 4)) if label is None else label
    for split in ("train", "val"):
        for index in range(count):
            image = bands(3, "int16") + np.int16(index)
            image[0, 0] = -32768
            write_tiff(root / split / "images" / f"{index}.tif", image, -32768)
            write_png(root / split / "masks" / f"{index}.png", mask)


def test_a_folder_of_geotiffs(tmp_path):
    folder_of(tmp_path)
    splits = open_splits(DataConfig("folder", root=tmp_path))
    assert splits.channels == ("R", "G", "B")
    assert not splits.optical
    sample = splits.train[1]
    assert sample.image.shape == (3, 6, 8)
    assert not sample.valid[0, 0]
    assert sample.valid.sum() == 47
    assert torch.isnan(sample.image[:, 0, 0]).all()


def write_named(path: Path, names: tuple[str, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "height": 8, "width": 8, "count": len(names), "dtype": "float32"}
    with gdal() as rasterio, rasterio.open(path, "w", **profile) as file:
        file.write(bands(len(names), size=(8, 8)).transpose(2, 0, 1))
        for band, name in enumerate(names, 1):
            file.set_band_description(band, name)


def test_bands_keep_the_names_of_the_file(library, tmp_path):
    write_named(tmp_path / "a.tif", ("VV", "VH"))
    assert band_names(tmp_path / "a.tif") == ("VV", "VH")
    write_named(tmp_path / "b.tif", ("VV", ""))
    write_named(tmp_path / "c.tif", ("VV", "VV"))
    (tmp_path / "d.tif").write_bytes(b"II")
    assert {band_names(tmp_path / f"{name}.tif") for name in "bcd"} == {None}


def test_channels_are_chosen_by_the_names_of_the_file(library, tmp_path):
    for split in ("train", "val"):
        write_named(tmp_path / split / "images" / "a.tif", ("VV", "VH"))
        (tmp_path / split / "masks").mkdir()
        write_png(tmp_path / split / "masks" / "a.png", np.arange(64, dtype=np.uint8).reshape(8, 8) % 2)
    config = DataConfig("folder", root=tmp_path, channels=("VH",))
    assert open_splits(config, seed=0).channels == ("VH",)


def test_an_unreadable_tile_is_named_before_training(tmp_path):
    folder_of(tmp_path)
    (tmp_path / "train" / "images" / "2.tif").write_bytes(b"II*\0")
    splits = open_splits(DataConfig("folder", root=tmp_path))
    with pytest.raises(UserError, match=r"2\.tif: corrupt image, cannot be read as TIFF"):
        compute_stats(splits.train, 2)  # what a run does first


def test_a_label_raster_of_another_shape(tmp_path):
    folder_of(tmp_path, label=np.array([[0, 1]], np.uint8))
    splits = open_splits(DataConfig("folder", root=tmp_path))
    with pytest.raises(UserError, match=r"0\.png: the label is 1×2 pixels but the image of 0 is 6×8"):
        splits.train[0]


def test_a_single_class_in_the_data_is_refused(tmp_path):
    folder_of(tmp_path, label=np.zeros((6, 8), np.uint8))
    with pytest.raises(UserError, match="the masks hold the ids 0"):
        open_splits(DataConfig("folder", root=tmp_path))


def ombria(root: Path, train: int = 20, test: int = 3) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        for index in range(count):
            for channel in ("before", "after"):
                write_png(root / split / channel / f"{index:04d}.png", rng.integers(0, 256, (6, 8), np.uint8))
            write_png(root / split / "mask" / f"{index:04d}.png", rng.integers(0, 2, (6, 8), np.uint8))


def test_ombria_keeps_a_tenth_of_train_for_validation(tmp_path):
    ombria(tmp_path)
    splits = open_splits(DataConfig("ombria", root=tmp_path))
    assert (len(splits.train), len(splits.val), len(splits.test)) == (18, 2, 3)
    assert not set(splits.train.ids) & set(splits.val.ids)
    assert splits.channels == ("before", "after")
    assert open_splits(DataConfig("ombria", root=tmp_path), seed=7).val.ids == splits.val.ids
    assert splits.test[0].valid.all()


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (("after",), ("after",)),
        (("0",), ("before",)),
        (("1,0",), ("after", "before")),
        (("1", "before"), ("after", "before")),
        (("0,1",), ("before", "after")),
    ],
)
def test_channels_by_name_and_place(tmp_path, wanted, names):
    ombria(tmp_path)
    both = open_splits(DataConfig("ombria", root=tmp_path))
    chosen = open_splits(DataConfig("ombria", root=tmp_path, channels=wanted))
    assert chosen.channels == names
    for split in ("train", "val", "test"):
        ours, all_ = getattr(chosen, split)[1], getattr(both, split)[1]
        for plane, name in zip(ours.image, names, strict=True):
            torch.testing.assert_close(plane, all_.image[both.channels.index(name)])
        torch.testing.assert_close(ours.label, all_.label)
        assert getattr(chosen, split).ids == getattr(both, split).ids


def test_validation_that_is_the_test_stays_so(tmp_path):
    folder_of(tmp_path)
    splits = choose_channels(open_splits(DataConfig("folder", root=tmp_path)), ["B"])
    assert splits.tested_on == "val"


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("VV", "--data.channels VV: the data has no such channel; it has 0 before, 1 after"),
        ("2", "no such channel"),
        ("0,before", "names a channel twice"),
    ],
)
def test_channels_that_are_not_there(tmp_path, wanted, words):
    ombria(tmp_path)
    with pytest.raises(UserError, match=words):
        open_splits(DataConfig("ombria", root=tmp_path, channels=(wanted,)))


def test_grasp_channels_are_words():
    with pytest.raises(UserError, match=r"--data\.channels 0: grasp data has depth, rgb, rgbd"):
        open_splits(DataConfig("tabletop", channels=("0",)))


def test_ombria_misses_a_file_or_has_another_size(tmp_path):
    ombria(tmp_path)
    write_png(tmp_path / "test" / "after" / "0001.png", np.zeros((3, 8), np.uint8))
    splits = open_splits(DataConfig("ombria", root=tmp_path))
    with pytest.raises(UserError, match=r"0001\.png: before and after are 6×8 and 3×8 pixels"):
        splits.test[1]
    (tmp_path / "test" / "before" / "0002.png").unlink()
    with pytest.raises(UserError, match=r"before/0002\.png: no such image"):
        open_splits(DataConfig("ombria", root=tmp_path))


def sen1floods(root: Path) -> None:
    for index, name in enumerate(("train", "valid", "test")):
        chip = f"Spain_{index}"
        image = bands(2) - np.float32(10)
        image[0, :2] = np.nan
        label = np.tile(np.array([0, 1, -1, 1], np.int16), (6, 2))
        write_tiff(root / "S1Hand" / f"{chip}_S1Hand.tif", image)
        write_tiff(root / "LabelHand" / f"{chip}_LabelHand.tif", label[..., None])
        (root / f"flood_{name}_data.csv").write_text(f"{chip}_S1Hand.tif,{chip}_LabelHand.tif\n")


def test_sen1floods11(library, tmp_path):
    sen1floods(tmp_path)
    splits = open_splits(DataConfig("sen1floods11", root=tmp_path))
    assert [reader.ids for reader in (splits.train, splits.val, splits.test)] == [
        (f"Spain_{i}",) for i in range(3)
    ]
    sample = splits.val[0]
    assert sample.label[1].tolist() == [0, 1, VOID, 1] * 2
    assert sample.label[0].tolist() == [VOID, VOID, VOID, 1, 0, 1, VOID, 1]
    torch.testing.assert_close(sample.valid, sample.label != VOID)
    assert choose_channels(splits, ["VH"]).train[0].image.shape == (1, 6, 8)


def test_sen1floods11_with_a_chip_missing(tmp_path):
    sen1floods(tmp_path)
    (tmp_path / "LabelHand" / "Spain_1_LabelHand.tif").unlink()
    with pytest.raises(UserError, match=r"image .*Spain_1_S1Hand\.tif has no mask"):
        open_splits(DataConfig("sen1floods11", root=tmp_path))
    (tmp_path / "flood_valid_data.csv").write_text("Spain_2\n")
    with pytest.raises(UserError, match="a row is 'Spain_2'"):
        open_splits(DataConfig("sen1floods11", root=tmp_path))


@pytest.mark.realdata("sen1floods11_chip")
def test_the_published_chip(library, tmp_path):
    folder = Path(os.environ["EDGEDISTILL_DATA"]) / "sen1floods11_chip"
    for kind in ("S1Hand", "LabelHand"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / f"Spain_7370579_{kind}.tif").symlink_to(folder / f"Spain_7370579_{kind}.tif")
    for name in ("train", "valid", "test"):
        (tmp_path / f"flood_{name}_data.csv").write_text(
            "Spain_7370579_S1Hand.tif,Spain_7370579_LabelHand.tif\n"
        )
    sample = open_splits(DataConfig("sen1floods11", root=tmp_path)).train[0]
    assert sample.image.shape == (2, 512, 512)
    assert (~sample.valid).sum() == 99  # as its README counts
    assert -60 < float(sample.image.min()) < float(sample.image.max()) < 40


@pytest.mark.realdata("ombria")
def test_the_published_tiles():
    splits = open_splits(DataConfig("ombria"))
    assert (len(splits.train), len(splits.val), len(splits.test)) == (562, 62, 70)
    assert splits.train[0].image.shape == (2, 256, 256)
