"""VOC with masks of palette indices or colors, and its download."""

from pathlib import Path

import numpy as np
import pytest

from deploy.errors import UserError
from deploy.files.images import write_png
from distill.data.datasets.voc import voc_color
from tests.distill.data.datasets.dataset_files import ids, open_at, photo, write_jpg, write_palette


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
