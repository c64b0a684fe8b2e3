"""The reader of Cornell: rectangles, depth, crops and splits."""

import numpy as np
import pytest

from deploy.errors import UserError
from deploy.tasks.grasp.geometry import corners
from distill.data.grasp.cornell import open_cornell
from tests.distill.data.grasp.cornell_files import NAN, RECTANGLE, cornell, make_cornell
from tests.distill.data.grasp.grasp_files import at


def test_cornell_reads_rectangles_colors_and_depth(tmp_path):
    make_cornell(tmp_path)
    sample = cornell(tmp_path, "rgbd")[1]
    assert (sample.id, sample.object) == ("pcd0101", "0")
    assert sample.image.shape == (4, 480, 640)
    assert sample.image[:, 0, 0].tolist() == pytest.approx([1, 1, 1, 0.6])
    (grasp,) = sample.grasps  # that with NaN is skipped
    assert grasp[:2] == pytest.approx([280, 334.85])
    assert grasp[2] == pytest.approx(-np.arctan2(4.3, 56))  # its opening falls to the right
    assert grasp[3:] == pytest.approx([np.hypot(56, 4.3), np.hypot(2, 26)])
    assert corners(sample.grasps)[0] == pytest.approx(
        np.array([[253, 319.7], [309, 324], [307, 350], [251, 345.7]]), abs=1.2
    )
    assert cornell(tmp_path, "depth")[1].image.shape == (1, 480, 640)
    assert cornell(tmp_path, "rgb")[1].image.shape == (3, 480, 640)


def test_cornell_makes_depth_with_holes_of_a_point_cloud(tmp_path):
    make_cornell(tmp_path, count=1, cloud=True)
    depth = cornell(tmp_path)[0].image[0].numpy()
    assert depth[0, 0] == pytest.approx(0.5)
    assert depth[1, 1] == pytest.approx(1.2)
    assert np.isfinite(depth).sum() == 2


def test_cornell_can_be_cut_around_its_grasps(tmp_path):
    make_cornell(tmp_path)
    whole, cut = cornell(tmp_path)[0], cornell(tmp_path, crop=300)[0]
    assert cut.image.shape == (1, 300, 300)
    assert whole.grasps[0] - cut.grasps[0] == pytest.approx([130, 180, 0, 0, 0])  # 334 - 150, moved up by 4
    (tmp_path / "01" / "pcd0100cpos.txt").write_text("")
    assert cornell(tmp_path, crop=300)[0].image.shape == (1, 300, 300)


def test_an_image_of_cornell_may_have_no_grasp(tmp_path):
    make_cornell(tmp_path)
    for text in ("", NAN, "10 10\n10 10\n10 12\n10 12\n"):
        (tmp_path / "01" / "pcd0100cpos.txt").write_text(text)
        assert cornell(tmp_path)[0].grasps.shape == (0, 5)


def test_a_rectangle_outside_the_image_is_dropped(tmp_path):
    make_cornell(tmp_path)
    outside = "700 10\n720 10\n720 20\n700 20\n"
    (tmp_path / "01" / "pcd0100cpos.txt").write_text(RECTANGLE + outside)
    assert len(cornell(tmp_path)[0].grasps) == 1


def test_cornell_is_split_by_object_or_by_image(tmp_path):
    make_cornell(tmp_path, count=40)
    splits = open_cornell(at(tmp_path, "cornell"), 0)
    parts = [splits.train, splits.val, splits.test]
    assert [len(part) for part in parts] == [32, 4, 4]
    assert sorted(name for part in parts for name in part.ids) == [f"pcd{n:04d}" for n in range(100, 140)]
    shown = [{part[index].object for index in range(len(part))} for part in parts]
    assert sum(map(len, shown)) == 20
    assert (splits.task, splits.channels, splits.optical) == ("grasp", ("depth",), False)
    assert parts[1][0].id == parts[1].ids[0]
    assert parts[1][0].image.shape == (1, 300, 300)

    (tmp_path / "processedData" / "z.txt").unlink()
    with pytest.raises(UserError, match=r"z\.txt: is needed to split by object"):
        open_cornell(at(tmp_path, "cornell"), 0)
    splits = open_cornell(at(tmp_path, "cornell"), 0, channels="rgb", by="image", crop=0)
    assert (splits.channels, splits.optical) == (("R", "G", "B"), True)
    assert len(splits.train) == 32
