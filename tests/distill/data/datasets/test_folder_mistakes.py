"""One line for each mistake in a user's folder, with the file's name."""

from pathlib import Path

import numpy as np
import pytest

from deploy.errors import UserError
from deploy.files.images import write_png
from tests.distill.data.datasets.dataset_files import HEIGHT, WIDTH, ids, laid_out, open_at, photo, write_jpg


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
        (twin_image, r"train0\.jpg and train0\.png would have the same mask"),
        (gap_in_ids, r"the masks hold the ids 0, 1, 9, but .*write .*classes\.json"),
        (binary_masks, r"the masks hold the ids 0, 255, but .*255 is void; write .*classes\.json"),
        (no_val, r"val/images: no such folder; rename pictures/ beside it to images/"),
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
        ('{"classes": ["a", "b"], "channels": ["VV"]}', r"has 3 channels, but names of 1 \(VV\)"),
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
