"""The command that converts masks to class indices."""

import numpy as np
import pytest
from PIL import Image

from deploy.errors import UserError
from deploy.files.images import read_mask, write_png
from distill.cli import main
from distill.tiles import masks
from tests.distill.data.datasets.dataset_files import ids, laid_out, open_at


def convert(folder, *maps: str) -> int:
    """Run `masks` from `src` to `dst` in a folder."""
    options = [word for one in maps for word in ("--map", one)]
    return main(["masks", str(folder / "src"), str(folder / "dst"), *options])


def test_numbers_of_a_labeled_folder(tmp_path):
    laid_out(tmp_path / "src", ids(0, 255))
    assert convert(tmp_path, "255=1") == 0
    for split in ("train", "val", "test"):
        assert (read_mask(tmp_path / "dst" / split / "masks" / f"{split}0.png") == ids(0, 1)).all()


def test_what_it_writes_trains(tmp_path, capsys):
    laid_out(tmp_path / "src", ids(0, 255))
    (tmp_path / "src" / "classes.json").write_text('["a", {"name": "b", "value": 255}]')
    for _ in range(2):  # again, into the same folder
        assert convert(tmp_path, "255=1") == 0
    said = capsys.readouterr().out
    assert f"edgedistill run folder --data.root {tmp_path / 'dst'}" in said
    assert "classes.json was not copied" in said
    splits = open_at("folder", tmp_path / "dst")
    assert splits.test[0].image.tolist() == open_at("folder", tmp_path / "src").test[0].image.tolist()
    assert splits.train[0].label[:2, 0].tolist() == [0, 1]
    assert all(path.suffix == ".png" for path in (tmp_path / "dst").rglob("*") if path.is_file())


def test_images_are_copied_where_they_cannot_be_linked(tmp_path, monkeypatch):
    laid_out(tmp_path / "src", ids(0, 255))
    monkeypatch.setattr(masks.os, "link", lambda *_: (_ for _ in ()).throw(OSError("another file system")))
    assert convert(tmp_path, "255=1") == 0
    assert open_at("folder", tmp_path / "dst").train[0].label[:2, 0].tolist() == [0, 1]


def test_colors_and_palettes(tmp_path):
    colors = np.array([(0, 0, 0), (255, 0, 0)], np.uint8)
    write_png(tmp_path / "src" / "rgb.png", colors[ids(0, 1)])
    image = Image.fromarray(ids(1, 0), "P")
    image.putpalette([255, 0, 0, 0, 0, 0])
    image.save(tmp_path / "src" / "indexed.png")
    assert convert(tmp_path, "000000=0", "ff0000=1") == 0
    for name in ("rgb", "indexed"):
        assert (read_mask(tmp_path / "dst" / f"{name}.png") == ids(0, 1)).all()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("255", "should be NUMBER=INDEX"),
        ("1=256", r"index in 0\.\.255"),
        ("0=1", r"big\.npy: holds the number 300; say its class: --map 300=INDEX"),
    ],
)
def test_mistakes(entry, message, tmp_path):
    (tmp_path / "src").mkdir()
    np.save(tmp_path / "src" / "big.npy", ids(0, 1).astype(np.uint16) * 300)
    with pytest.raises(UserError, match=message):
        convert(tmp_path, entry)


def test_void_of_a_palette_stays_void(tmp_path):
    """Palettes are padded with black, so that the color of 255 is that of a class; training reads 255 as void there."""
    image = Image.fromarray(np.array([[0, 1], [255, 0]], np.uint8), "P")
    image.putpalette([0, 0, 0, 128, 0, 0] + [0, 0, 0] * 254)
    (tmp_path / "src").mkdir()
    image.save(tmp_path / "src" / "a.png")
    assert convert(tmp_path, "000000=0", "800000=1") == 0
    assert read_mask(tmp_path / "dst" / "a.png").tolist() == [[0, 1], [255, 0]]
    assert convert(tmp_path, "000000=0", "800000=1", "255=1") == 0  # a number that is named decides
    assert read_mask(tmp_path / "dst" / "a.png").tolist() == [[0, 1], [1, 0]]


def test_an_index_without_a_color(tmp_path, monkeypatch):
    """As other programs write; Pillow does not."""
    write_png(tmp_path / "src" / "a.png", ids(0, 1))
    monkeypatch.setattr(masks, "read_mask", lambda _: np.array([[0, 1], [2, 0]], np.uint8))
    monkeypatch.setattr(masks, "palette_of", lambda _: [(0, 0, 0), (128, 0, 0)])
    with pytest.raises(UserError, match=r"a\.png: holds the number 2; say its class: --map 2=INDEX"):
        convert(tmp_path, "000000=0", "800000=1")


def test_two_masks_of_one_name_are_refused_before_one_is_lost(tmp_path):
    for name in ("a.png", "a.bmp"):
        (tmp_path / "src").mkdir(exist_ok=True)
        Image.fromarray(ids(0, 255)).save(tmp_path / "src" / name)
    with pytest.raises(
        UserError, match=r"a\.(png|bmp) and .*a\.(png|bmp) would both become .*a\.png; rename"
    ):
        convert(tmp_path, "255=1")
    assert not (tmp_path / "dst").exists()
