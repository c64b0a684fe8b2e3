"""One line for each mistake in the files of Cornell."""

import numpy as np
import pytest

from deploy.errors import UserError
from distill.data.grasp.cornell import open_cornell
from tests.distill.data.grasp.cornell_files import RECTANGLE, cornell, make_cornell, write_cloud
from tests.distill.data.grasp.grasp_files import at, write_tiff


@pytest.mark.parametrize(
    ("missing", "channels", "message"),
    [
        ("pcd0100cpos.txt", "depth", r"pcd0100cpos\.txt: no such file, though image 0100"),
        ("pcd0100r.png", "rgbd", r"pcd0100r\.png: no such file, though image 0100"),
        ("pcd0100d.tiff", "rgbd", r"pcd0100\.txt: no such file, nor …d\.tiff; .* rgb"),
    ],
)
def test_cornell_names_a_missing_file_before_anything_is_read(tmp_path, missing, channels, message):
    make_cornell(tmp_path)
    (tmp_path / "01" / missing).unlink()
    with pytest.raises(UserError, match=message):
        open_cornell(at(tmp_path, "cornell"), 0, channels=channels, by="image")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10 10\n12 x\n", r"pcd0100cpos\.txt, line 2: '12 x' should be 2 numbers"),
        ("10 10\n12\n", r"line 2: '12' should be 2 numbers"),
        (RECTANGLE + "1 2\n", r"pcd0100cpos\.txt: has 5 corners, not four"),
        ("\udcff\udcfe", r"pcd0100cpos\.txt: not a text file"),
    ],
)
def test_damaged_rectangles_are_named(tmp_path, text, message):
    make_cornell(tmp_path)
    (tmp_path / "01" / "pcd0100cpos.txt").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=message):
        cornell(tmp_path)[0]


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (["1 2 3 4"], "its points are not 5 numbers each"),
        (["1 2 3 4 five"], "its points are not 5 numbers each"),
        (["1 2 3 4 307200"], r"pixel 307200 lies outside an image of 480×640"),
        (["1 2 3 4 -1"], r"pixel -1 lies outside"),
    ],
)
def test_damaged_clouds_are_named(tmp_path, points, message):
    make_cornell(tmp_path, count=1, cloud=True)
    write_cloud(tmp_path / "01" / "pcd0100.txt", points)
    with pytest.raises(UserError, match=rf"pcd0100\.txt: {message}"):
        cornell(tmp_path)[0]


def test_a_file_that_is_no_cloud_is_named(tmp_path):
    make_cornell(tmp_path, count=1, cloud=True)
    (tmp_path / "01" / "pcd0100.txt").write_text("FIELDS x y z\nDATA ascii\n1 2 3\n")
    with pytest.raises(UserError, match=r"pcd0100\.txt: is not an ASCII point cloud"):
        cornell(tmp_path)[0]


def test_cornell_elsewhere_and_damaged_objects(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: no such folder; get data01"):
        open_cornell(at(tmp_path / "nowhere", "cornell"), 0)
    with pytest.raises(UserError, match=r"holds no 01/pcd0100r\.png"):
        open_cornell(at(tmp_path, "cornell"), 0)
    make_cornell(tmp_path)
    (tmp_path / "processedData" / "z.txt").write_text("0100 1 mug\n0101\n")
    with pytest.raises(UserError, match=r"z\.txt, line 2: '0101' should begin with image and object"):
        open_cornell(at(tmp_path, "cornell"), 0)


def test_sizes_of_colors_and_depth_must_agree(tmp_path):
    make_cornell(tmp_path)
    write_tiff(tmp_path / "01" / "pcd0100d.tiff", np.ones((300, 300)))
    with pytest.raises(UserError, match=r"pcd0100r\.png: colors and depth are 480×640 and 300×300 pixels"):
        cornell(tmp_path, "rgbd")[0]
