"""Folders whose masks do not mean what their numbers say, or whose files do not match: found when they are opened."""

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deploy.errors import UserError
from deploy.files.images import write_png
from distill import cli
from tests.distill.data.datasets.dataset_files import ids, laid_out, open_at, photo, write_jpg

COLORS = {"a": (0, 0, 0), "b": (255, 0, 0), "c": (0, 255, 0)}
NAMED = json.dumps([{"name": name, "color": color} for name, color in COLORS.items()])


def write_indexed(path: Path, names: np.ndarray, order: str) -> None:
    """A palette image of class names, which numbers them in that order."""
    image = Image.fromarray(np.vectorize(order.index)(names).astype(np.uint8), "P")
    image.putpalette([part for name in order for part in COLORS[name]])
    image.save(path)


def indexed_folder(root: Path) -> np.ndarray:
    laid_out(root, ids(0, 1, 2), ids(0, 1, 2))
    names = np.array(list("abc"))[ids(0, 1, 2)]
    for number, path in enumerate(sorted(root.rglob("masks/*.png"))):
        write_indexed(path, names, "acb" if number % 2 else "abc")
    return names


def refused(root: Path, **fields: object) -> str:
    with pytest.raises(UserError) as caught:
        open_at("folder", root, **fields)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_colors_decide_in_palettes_of_any_order(tmp_path):
    indexed_folder(tmp_path)
    (tmp_path / "classes.json").write_text(NAMED)
    splits = open_at("folder", tmp_path)
    for reader in (splits.train, splits.val):
        for index in range(2):
            assert reader[index].label.numpy().tolist() == ids(0, 1, 2).tolist()


@pytest.mark.parametrize("classes", [None, '["a", "b", "c"]'])
def test_palettes_that_differ_are_refused_where_no_color_decides(tmp_path, classes):
    indexed_folder(tmp_path)
    if classes:
        (tmp_path / "classes.json").write_text(classes)
    message = refused(tmp_path)
    assert "train0.png" in message
    assert "train1.png" in message
    assert "index 1 of its palette" in message


def test_a_palette_with_some_of_the_colors_is_refused(tmp_path):
    indexed_folder(tmp_path)
    entries = json.loads(NAMED)
    entries[2]["color"] = [0, 254, 0]
    (tmp_path / "classes.json").write_text(json.dumps(entries))
    assert "color (0, 255, 0), which is no class's" in refused(tmp_path)


def test_colors_for_display_leave_numbers_as_they_are(tmp_path):
    names = indexed_folder(tmp_path)
    for path in tmp_path.rglob("masks/*.png"):
        write_indexed(path, names, "abc")
    display = [{"name": n, "color": [9, 9, i]} for i, n in enumerate("abc")]
    (tmp_path / "classes.json").write_text(json.dumps(display))
    assert open_at("folder", tmp_path).train[0].label.numpy().tolist() == ids(0, 1, 2).tolist()


def test_palette_index_255_is_void_beside_colors(tmp_path):
    indexed_folder(tmp_path)
    (tmp_path / "classes.json").write_text(NAMED)
    image = Image.fromarray(ids(0, 1, 2, 255), "P")
    image.putpalette([part for color in COLORS.values() for part in color] + [0] * (3 * 253))
    image.save(tmp_path / "train" / "masks" / "train0.png")
    assert open_at("folder", tmp_path).train[0].label.numpy().tolist() == ids(0, 1, 2, 255).tolist()


def test_named_masks_of_0_and_255_are_refused_with_the_share_and_the_remedy(tmp_path):
    laid_out(tmp_path, ids(0, 0, 255))
    (tmp_path / "classes.json").write_text('["background", "thing"]')
    message = refused(tmp_path)
    assert "is thing, and 255, which is void, is 33% of them" in message
    assert "--data.foreground 255" in message
    assert "--map 255=1" in message
    splits = open_at("folder", tmp_path, foreground=255)
    assert splits.train[0].label.numpy().tolist() == ids(0, 0, 1).tolist()
    assert splits.train[0].valid.all()
    assert [info.name for info in splits.classes] == ["background", "thing"]


def test_foreground_of_sixteen_bits_without_names(tmp_path):
    laid_out(tmp_path, ids(0, 1).astype(np.uint16) * 65535)
    assert "or give --data.foreground 65535" in refused(tmp_path)
    assert open_at("folder", tmp_path, foreground=65535).val[0].label[:2, 0].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("values", "command"),
    [
        ((0, 3, 5), "--map 0=0 --map 3=1 --map 5=2"),
        ((1, 2, 4, 8, 16, 32), "--map 1=0 --map 2=1 --map 4=2 --map 8=3 --map 16=4 --map 32=5"),
        ((0, 127, 255), "--map 0=0 --map 127=1 --map 255=2 (without 255, if that is void)"),
        ((0, 255), "--map 0=0 --map 255=1"),
    ],
)
def test_ids_with_gaps_are_answered_with_the_command_that_converts_them(tmp_path, values, command):
    laid_out(tmp_path / "in", ids(*values))
    wanted = f"edgedistill masks {tmp_path / 'in'} NEW_FOLDER {command}"
    assert refused(tmp_path / "in").endswith(wanted)
    words = wanted.partition(" (")[0].replace("NEW_FOLDER", str(tmp_path / "out")).split()
    assert cli.main(words[1:]) == 0
    assert len(open_at("folder", tmp_path / "out").classes) == len(values)  # it trains as it is


@pytest.mark.parametrize("value", [0, 255])
def test_masks_of_a_single_id_get_no_example_that_would_be_refused(tmp_path, value):
    laid_out(tmp_path, ids(value))
    message = refused(tmp_path)
    assert f"all masks hold the single id {value}" in message
    assert "classes.json" not in message


def test_a_folder_test_without_images_is_not_replaced_by_val(tmp_path):
    laid_out(tmp_path, ids(0, 1))
    (tmp_path / "test" / "images").rename(tmp_path / "test" / "held")
    assert "test/images: no such folder" in refused(tmp_path)


@pytest.mark.parametrize(
    ("kind", "other", "words"),
    [
        ("masks", "labels", "train/masks: no such folder; rename labels/ beside it to masks/"),
        ("masks", "GT", "rename GT/ beside it to masks/"),
        ("images", "imgs", "train/images: no such folder; rename imgs/ beside it to images/"),
        ("masks", "anything", "train/masks: no such folder; each of "),
    ],
)
def test_folders_of_other_names_are_recognized(tmp_path, kind, other, words):
    laid_out(tmp_path, ids(0, 1))
    (tmp_path / "train" / kind).rename(tmp_path / "train" / other)
    assert words in refused(tmp_path)


@pytest.mark.parametrize("name", ["train0_mask", "mask_train0", "train0-labels"])
def test_masks_named_otherwise_than_their_images_are_recognized(tmp_path, name):
    laid_out(tmp_path, ids(0, 1))
    (tmp_path / "train" / "masks" / "train0.png").rename(tmp_path / "train" / "masks" / f"{name}.png")
    assert f"{name}.png seems to be its mask: rename it as the image" in refused(tmp_path)


def test_masks_among_the_images_are_recognized(tmp_path):
    laid_out(tmp_path, ids(0, 1))
    mask = tmp_path / "train" / "masks" / "train0.png"
    mask.rename(tmp_path / "train" / "images" / "train0_mask.png")
    mask.parent.rmdir()
    assert "move train0_mask and its like from images/ to masks/" in refused(tmp_path)


def test_foreground_is_for_two_classes_of_a_folder(tmp_path):
    laid_out(tmp_path, ids(0, 255))
    (tmp_path / "classes.json").write_text('["a", "b", "c"]')
    assert "names 3" in refused(tmp_path, foreground=255)
    with pytest.raises(UserError, match=r"--data\.foreground 255: is for the data set `folder`"):
        open_at("synthetic", tmp_path, foreground=255)


def test_a_class_without_a_pixel_stops_unless_allowed(tmp_path):
    laid_out(tmp_path, ids(0, 1))
    (tmp_path / "classes.json").write_text('["a", "b", "never"]')
    message = refused(tmp_path)
    assert "training masks is never" in message
    assert "--data.allow-absent-classes" in message
    assert len(open_at("folder", tmp_path, allow_absent_classes=True).classes) == 3


def test_more_classes_than_a_bundle_holds(tmp_path):
    laid_out(tmp_path, ids(0, 1))
    (tmp_path / "classes.json").write_text(json.dumps([f"c{number}" for number in range(300)]))
    assert "names 300 classes; a bundle has at most 255" in refused(tmp_path)


def test_inferred_ids_beyond_a_bundle(tmp_path):
    wide = np.arange(300, dtype=np.uint16).reshape(10, 30)
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (tmp_path / split / kind).mkdir(parents=True)
        np.save(tmp_path / split / "images" / "x.npy", np.zeros((10, 30, 3), np.uint8))
        np.save(tmp_path / split / "masks" / "x.npy", wide)
    assert "but classes count from 0 and 255 is void" in refused(tmp_path)


def test_faults_of_validation_and_test_masks_are_found_at_the_start(tmp_path):
    laid_out(tmp_path, ids(0, 1))
    (tmp_path / "classes.json").write_text('["a", "b"]')
    write_png(tmp_path / "test" / "masks" / "test0.png", ids(0, 7))
    assert "test0.png: label id 7" in refused(tmp_path)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_lossy_masks_are_refused_whatever_their_suffix(tmp_path, suffix):
    laid_out(tmp_path, ids(0, 1))
    path = tmp_path / "val" / "masks" / "val0.png"
    path.unlink()
    image = Image.fromarray(ids(0, 1))
    image.save(path.with_suffix(suffix), format="WEBP" if suffix == ".webp" else "JPEG")
    assert "whose compression changes labels" in refused(tmp_path)


def test_webp_upper_case_and_unicode_forms_match(tmp_path):
    laid_out(tmp_path, ids(0, 1))
    images, masks = tmp_path / "train" / "images", tmp_path / "train" / "masks"
    Image.fromarray(photo(1)).save(images / "more.webp", lossless=True)
    Image.fromarray(ids(0, 1)).convert("RGB").convert("L").save(masks / "more.PNG", format="PNG")
    write_png(images / (unicodedata.normalize("NFD", "é") + ".png"), photo(2))
    write_png(masks / (unicodedata.normalize("NFC", "é") + ".png"), ids(0, 1))
    for name in (".DS_Store", "._more.png", "Thumbs.db"):
        (images / name).write_bytes(b"?")
        (masks / name).write_bytes(b"?")
    train = open_at("folder", tmp_path).train
    assert list(train.ids) == ["more", "train0", "é"]
    assert train[0].image[:, 0, 0].tolist() == photo(1)[0, 0].tolist()


def test_unmatched_files_are_counted_and_named(tmp_path):
    laid_out(tmp_path, ids(0, 1), ids(0, 1))
    write_png(tmp_path / "train" / "masks" / "lonely.png", ids(0, 1))
    with pytest.warns(RuntimeWarning, match=r"train/masks: 1 mask without an image, not used: lonely\.png"):
        open_at("folder", tmp_path)
    (tmp_path / "train" / "masks" / "lonely.png").unlink()
    (tmp_path / "val" / "images" / "raw.nef").write_bytes(b"?")
    with pytest.warns(RuntimeWarning, match=r"1 file of a kind that is not read, not used: raw\.nef"):
        open_at("folder", tmp_path)
    (tmp_path / "val" / "images" / "raw.nef").unlink()
    for number in (0, 1):
        write_png(tmp_path / "train" / "images" / f"new{number}.png", photo())
    assert "2 of 4 images have none (new0.png, new1.png)" in refused(tmp_path)


def test_two_masks_of_one_image_are_refused(tmp_path):
    laid_out(tmp_path, ids(0, 1))
    np.save(tmp_path / "train" / "masks" / "train0.npy", ids(0, 1))
    assert "train0.npy and train0.png are masks of the same image" in refused(tmp_path)


def test_gray_with_alpha_is_its_numbers(tmp_path):
    laid_out(tmp_path, ids(0, 1))
    plain = Image.fromarray(ids(0, 1), "L")
    Image.merge("LA", (plain, Image.new("L", plain.size, 255))).save(tmp_path / "train/masks/train0.png")
    assert open_at("folder", tmp_path).train[0].label[:2, 0].tolist() == [0, 1]


def test_a_jpeg_image_beside_a_mask_of_another_size(tmp_path):
    laid_out(tmp_path, ids(0, 1))
    (tmp_path / "val" / "images" / "val0.png").unlink()
    write_jpg(tmp_path / "val" / "images" / "val0.jpg", photo()[:-1])
    assert "val0.png: the label is 6×8 pixels but the image of val0 is 5×8" in refused(tmp_path)
