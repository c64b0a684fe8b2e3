"""The reader of Jacquard, and one line for each mistake in its files."""

from pathlib import Path

import numpy as np
import pytest

from deploy.errors import UserError
from deploy.files.images import write_png
from distill.data.grasp.jacquard import JacquardReader, open_jacquard
from tests.distill.data.grasp.grasp_files import at, write_tiff


def make_jacquard(root: Path, objects=20) -> None:
    for index in range(objects):
        name = f"{index:032x}"
        folder = root / f"Jacquard_Dataset_{index % 2}" / name
        folder.mkdir(parents=True)
        for view in range(2):
            stem = folder / f"{view}_{name}"
            write_png(f"{stem}_RGB.png", np.full((16, 16, 3), view, np.uint8))
            write_tiff(Path(f"{stem}_perfect_depth.tiff"), np.full((16, 16), 1.5))
            write_tiff(Path(f"{stem}_stereo_depth.tiff"), np.eye(16) * 1.25)
            Path(f"{stem}_grasps.txt").write_text("8.5;7.25;30.0;10.0;4.0\n5;5;-90;6;2\n", encoding="utf-8")


def jacquard(root: Path, channels="depth", depth="perfect") -> JacquardReader:
    return JacquardReader(tuple(sorted(root.rglob("*_grasps.txt"))), channels, depth)


def test_jacquard_turns_clockwise_angles_around(tmp_path):
    make_jacquard(tmp_path, objects=2)
    sample = jacquard(tmp_path, "rgbd")[1]
    assert (sample.id, sample.object) == (f"1_{0:032x}", f"{0:032x}")
    assert sample.grasps[0] == pytest.approx([8.5, 7.25, -np.pi / 6, 10, 4])
    assert sample.grasps[1, 2] == pytest.approx(-np.pi / 2)
    assert sample.image[:, 3, 3].tolist() == [1, 1, 1, 1.5]


def test_jacquard_has_two_kinds_of_depth(tmp_path):
    make_jacquard(tmp_path, objects=1)
    stereo = jacquard(tmp_path, depth="stereo")[0].image[0].numpy()
    assert np.isfinite(stereo).sum() == 16
    assert stereo[2, 2] == 1.25


def test_jacquard_is_split_by_object(tmp_path):
    make_jacquard(tmp_path)
    splits = open_jacquard(at(tmp_path, "jacquard"), 0, channels="rgb")
    parts = [splits.train, splits.val, splits.test]
    assert [len(part) for part in parts] == [32, 4, 4]
    assert sum(len({part[i].object for i in range(len(part))}) for part in parts) == 20


@pytest.mark.parametrize(("channels", "depth"), [("rgb", "perfect"), ("depth", "stereo")])
def test_jacquard_names_a_missing_image(tmp_path, channels, depth):
    make_jacquard(tmp_path)
    ending = "RGB.png" if channels == "rgb" else "stereo_depth.tiff"
    next(tmp_path.rglob(f"*_{ending}")).unlink()
    with pytest.raises(UserError, match=rf"{ending}: no such file, though .*_grasps\.txt is there"):
        open_jacquard(at(tmp_path, "jacquard"), 0, channels=channels, depth=depth)


def test_jacquard_without_grasps_and_damaged(tmp_path):
    with pytest.raises(UserError, match=r"holds no OBJECT/\*_grasps\.txt"):
        open_jacquard(at(tmp_path, "jacquard"), 0)
    make_jacquard(tmp_path, objects=1)
    path = next(tmp_path.rglob("0_*_grasps.txt"))
    path.write_text("")
    assert jacquard(tmp_path)[0].grasps.shape == (0, 5)
    path.write_text("1;2;3;4;5\n1;2;3;4\n")
    with pytest.raises(UserError, match=r"_grasps\.txt, line 2: '1;2;3;4' should be 5 numbers"):
        jacquard(tmp_path)[0]
    path.write_text("1;2;nan;4;5\n")
    with pytest.raises(UserError, match=r"_grasps\.txt: grasp 1 is not finite"):
        jacquard(tmp_path)[0]
