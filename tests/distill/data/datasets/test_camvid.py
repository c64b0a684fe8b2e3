"""CamVid in both of its published layouts, and one line for each mistake in its files."""

from pathlib import Path

import numpy as np
import pytest

from deploy.errors import UserError
from deploy.files.images import write_png
from tests.distill.data.datasets.dataset_files import HEIGHT, WIDTH, ids, open_at, photo, write_jpg


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
