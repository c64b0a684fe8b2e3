"""The command that converts masks to class indices."""

import numpy as np
import pytest
from PIL import Image

from deploy.errors import UserError
from deploy.files.images import read_mask, write_png
from distill.cli import main
from tests.distill.data.datasets.dataset_files import ids, laid_out


def test_numbers_of_a_labeled_folder(tmp_path):
    laid_out(tmp_path / "src", ids(0, 255))
    assert main(["masks", str(tmp_path / "src"), str(tmp_path / "dst"), "--map", "255=1"]) == 0
    for split in ("train", "val", "test"):
        assert (read_mask(tmp_path / "dst" / split / "masks" / f"{split}0.png") == ids(0, 1)).all()


def test_colors_and_palettes(tmp_path):
    colors = np.array([(0, 0, 0), (255, 0, 0)], np.uint8)
    write_png(tmp_path / "src" / "rgb.png", colors[ids(0, 1)])
    image = Image.fromarray(ids(1, 0), "P")
    image.putpalette([255, 0, 0, 0, 0, 0])
    image.save(tmp_path / "src" / "indexed.png")
    arguments = [
        "masks",
        str(tmp_path / "src"),
        str(tmp_path / "dst"),
        "--map",
        "000000=0",
        "--map",
        "ff0000=1",
    ]
    assert main(arguments) == 0
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
        main(["masks", str(tmp_path / "src"), str(tmp_path / "dst"), "--map", entry])
