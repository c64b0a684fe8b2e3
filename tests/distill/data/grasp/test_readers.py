"""Readers of grasp data in their published layouts, and one line for each mistake in the files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deploy.errors import UserError
from deploy.files.images import write_png
from deploy.tasks.grasp.geometry import corners
from distill.data.grasp.cornell import CornellReader, find_items, open_cornell
from distill.data.grasp.cornell_rgb import open_cornell_rgb, read_table
from distill.data.grasp.files import read_depth
from distill.data.grasp.jacquard import JacquardReader, open_jacquard

RECTANGLE = "253 319.7\n309 324\n307 350\n251 345.7\n"
"""As Cornell's files have them: not quite a rectangle, its first edge along the opening."""
NAN = "NaN NaN\nNaN NaN\n10 20\n30 40\n"


def at(root: Path, name: str):
    """A configuration with the name and the root of a data set, all that the readers look at."""
    return type("Config", (), {"name": name, "root": root})()


def write_tiff(path: Path, depth: np.ndarray) -> None:
    Image.fromarray(depth.astype(np.float32)).save(path)


# Cornell


def make_cornell(root: Path, count=4, cloud=False) -> None:
    """`count` images in two folders, two images of each object."""
    (root / "backgrounds").mkdir(parents=True)
    write_png(root / "backgrounds" / "pcdb0002r.png", np.zeros((480, 640, 3), np.uint8))
    lines = []
    for index in range(count):
        folder = root / f"{index % 2 + 1:02d}"
        folder.mkdir(exist_ok=True)
        stem = folder / f"pcd{index + 100:04d}"
        color = np.full((480, 640, 3), index, np.uint8)
        write_png(f"{stem}r.png", color)
        Path(f"{stem}cpos.txt").write_text(RECTANGLE + NAN)
        Path(f"{stem}cneg.txt").write_text(RECTANGLE)
        if cloud:
            write_cloud(Path(f"{stem}.txt"), ["300 400 0 0 0", "0 0 -1200 1e-38 641", "nan nan nan 0 5"])
        else:
            write_tiff(Path(f"{stem}d.tiff"), np.full((480, 640), 0.5 + index / 10))
        lines.append(f"{index + 100:04d} {index // 2} thing\n")
    (root / "processedData").mkdir()
    (root / "processedData" / "z.txt").write_text("".join(lines))


def write_cloud(path: Path, points: list[str]) -> None:
    path.write_text(
        "# .PCD v.7 - Point Cloud Data file format\nFIELDS x y z rgb index\nSIZE 4 4 4 4 4\nTYPE F F F F U\n"
        f"COUNT 1 1 1 1 1\nWIDTH {len(points)}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(points)}\n"
        "DATA ascii\n" + "\n".join(points) + "\n"
    )


def cornell(root: Path, channels="depth", crop=0) -> CornellReader:
    return CornellReader(find_items(root), channels, crop)


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
    with pytest.raises(UserError, match=r"pcd0100\.txt: is no ASCII point cloud"):
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


def test_depth_files(tmp_path):
    write_tiff(tmp_path / "d.tiff", np.array([[0.5, 0, np.nan, -1, np.inf]]))
    assert np.isnan(read_depth(tmp_path / "d.tiff")).tolist() == [[False, True, True, True, True]]
    write_tiff(tmp_path / "mm.tiff", np.full((8, 8), 700))
    with pytest.warns(RuntimeWarning, match="millimeters"):
        read_depth(tmp_path / "mm.tiff")
    write_png(tmp_path / "rgb.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(UserError, match=r"rgb\.png: holds 3 channels, should hold depth alone"):
        read_depth(tmp_path / "rgb.png")


# Jacquard


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
            Path(f"{stem}_grasps.txt").write_text("8.5;7.25;30.0;10.0;4.0\n5;5;-90;6;2\n")


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


# Cornell in colors

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
