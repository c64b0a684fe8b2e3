"""The reader of Cornell in colors alone, and one line for each mistake in its table."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deploy.errors import UserError
from distill.data.grasp.cornell_rgb import open_cornell_rgb, read_table
from tests.distill.data.grasp.grasp_files import at

HEADER = "image,split,cx,cy,theta_deg,opening,jaw\n"
ROWS = "pcd0100_1,train,7.5,6,30,8,4\npcd0120_2,val,7,6,90,8,4\npcd0140_1,test,,,,,\npcd0100_1,train,5,6,-90,8,4\n"


def make_cornell_rgb(root: Path, rows=ROWS) -> None:
    (root / "images").mkdir()
    (root / "grasps.csv").write_text(HEADER + rows)
    for name in ("pcd0100_1", "pcd0120_2", "pcd0140_1"):
        Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(root / "images" / f"{name}.jpg")


def test_cornell_rgb_has_its_own_split(tmp_path):
    make_cornell_rgb(tmp_path)
    splits = open_cornell_rgb(at(tmp_path, "cornell_rgb"), 0)
    (train,), (val,), (test,) = ([part[0]] for part in (splits.train, splits.val, splits.test))
    assert (train.id, val.id, test.id) == ("pcd0100_1", "pcd0120_2", "pcd0140_1")
    assert train.grasps == pytest.approx(np.array([[7.5, 6, np.pi / 6, 8, 4], [5, 6, -np.pi / 2, 8, 4]]))
    assert val.grasps[0, 2] == pytest.approx(-np.pi / 2)
    assert test.grasps.shape == (0, 5)
    assert train.image.shape == (3, 16, 16)
    assert len({train.object, val.object, test.object}) == 3


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("pcd0100_1,train,7,6,x,8,4", r"line 2: 'pcd0100_1,train,7,6,x,8,4' is not image,split"),
        ("pcd0100_1,train,7,6", "line 2"),
        ("pcd0100_1,dev,7,6,0,8,4", "line 2"),
        ("mug,train,7,6,0,8,4", "line 2"),
        ("pcd0100_1", "line 2"),
    ],
)
def test_a_damaged_table_is_named(tmp_path, row, message):
    make_cornell_rgb(tmp_path, row + "\n" + ROWS)
    with pytest.raises(UserError, match=rf"grasps\.csv, {message}"):
        read_table(tmp_path / "grasps.csv")


def test_other_mistakes_in_cornell_rgb(tmp_path):
    make_cornell_rgb(tmp_path)
    config = at(tmp_path, "cornell_rgb")
    (tmp_path / "images" / "pcd0120_2.jpg").unlink()
    with pytest.raises(UserError, match=r"pcd0120_2\.jpg: no such image, though grasps\.csv lists it"):
        open_cornell_rgb(config, 0)
    (tmp_path / "grasps.csv").write_text(HEADER + "pcd0100_1,train,7,6,0,8,4\n")
    with pytest.raises(UserError, match="lists no image of the split val"):
        open_cornell_rgb(config, 0)
    (tmp_path / "grasps.csv").write_text("a,b\n")
    with pytest.raises(UserError, match="its first line should be image,split"):
        open_cornell_rgb(config, 0)
    (tmp_path / "grasps.csv").write_text(HEADER + ROWS.replace("7.5", "nan"))
    (tmp_path / "images" / "pcd0120_2.jpg").write_bytes((tmp_path / "images" / "pcd0100_1.jpg").read_bytes())
    with pytest.raises(UserError, match=r"grasps\.csv, image pcd0100_1: grasp 1 is not finite"):
        open_cornell_rgb(config, 0).train[0]


@pytest.mark.realdata("cornell_rgb")
def test_the_real_cornell_rgb(data_root):
    splits = open_cornell_rgb(at(data_root / "cornell_rgb", "cornell_rgb"), 0)
    parts = (splits.train, splits.val, splits.test)
    assert [len(part) for part in parts] == [968, 196, 252]
    assert [sum(map(len, part.grasps.values())) for part in parts] == [5581, 1066, 1489]
    assert not set(splits.train.objects) & {*splits.val.objects, *splits.test.objects}
    for index in range(0, 196, 49):
        sample = splits.val[index]
        assert sample.image.shape == (3, 224, 224)
        assert ((sample.grasps[:, :2] >= 8) & (sample.grasps[:, :2] <= 216)).all()
        assert len(sample.grasps) > 0
