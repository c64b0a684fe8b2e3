"""What may be streamed, and one line for what may not."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from deploy.errors import UserError
from deploy.files.images import write_png
from deploy.stream.sources import source_of
from deploy.tasks.segmentation.model import SegmentationModel
from tests.deploy.stream.networks import LevelEngine, level, level_model
from tests.deploy.tiny import CLASSES, SPECS, make_image


@pytest.fixture
def shots(tmp_path):
    for value in (2, 0, 1):
        write_png(tmp_path / f"shot{value}.png", level(value))
    np.save(tmp_path / "zero.npy", level(9))
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "levels"),
    [("", [0, 1, 2, 9]), ("*.png", [0, 1, 2]), ("**/shot[01].*", [0, 1]), ("shot2.png", [2])],
)
def test_images_in_files_come_sorted(shots, pattern, levels):
    source = source_of(f"{shots}/{pattern}", SPECS["rgb"])
    frames = list(source.frames())
    assert [frame.image[0, 0, 0] for frame in frames] == levels
    assert [frame.index for frame in frames] == list(range(len(levels)))
    assert frames[0].where == str(shots / f"shot{levels[0]}.png")
    assert not source.live


@pytest.mark.parametrize("kind", [list, tuple, iter, np.stack])
def test_arrays_in_any_iterable(kind):
    frames = list(source_of(kind([level(3), level(4)]), SPECS["rgb"]).frames())
    assert [frame.image[0, 0, 0] for frame in frames] == [3, 4]
    assert [frame.where for frame in frames] == ["frame 0", "frame 1"]


@pytest.mark.parametrize(
    ("source", "live", "name"),
    [
        (0, True, "camera 0"),
        ("rtsp://user:secret@camera.example/1?a=b@c", True, "rtsp://camera.example/1?a=b@c"),
        ("rtsp://user:p@ss@camera.example/1", True, "rtsp://camera.example/1"),
        ("https://example.org/clip.mp4", False, "https://example.org/clip.mp4"),
    ],
)
def test_cameras_and_streams_are_live_and_passwords_are_not_shown(source, live, name):
    pytest.importorskip("cv2")
    found = source_of(source, SPECS["rgb"])
    assert (found.live, found.name) == (live, name)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("no/such/clip.mp4", "no/such/clip.mp4: no such file or folder"),
        ("no/such/*.png", "no file matches"),
        (np.zeros((4, 4, 3), np.uint8), r"4×4×3; for one image call model\(image\)"),
        (True, "cannot stream bool"),
        (None, "cannot stream NoneType"),
    ],
)
def test_other_sources_get_one_line(source, message):
    with pytest.raises(UserError, match=message):
        source_of(source, SPECS["rgb"])


def test_an_error_of_the_iterable_names_the_frame():
    def images():
        yield level(0)
        raise KeyError("camera")

    frames = source_of(images(), SPECS["rgb"]).frames()
    assert next(frames).index == 0
    with pytest.raises(UserError, match=r"^frame 1: the source failed \(KeyError: 'camera'\)$"):
        next(frames)
    with pytest.raises(UserError, match=r"^frame 0: expected an array.*got str among several"):
        list(source_of(["clip.mp4"], SPECS["rgb"]).frames())


def test_opencv_is_named_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    (tmp_path / "clip.mp4").touch()
    for source in (tmp_path / "clip.mp4", 0, "rtsp://camera.example"):
        with pytest.raises(UserError, match=r"pip install 'edgedistill\[video\]'"):
            source_of(source, SPECS["rgb"])


def test_image_files_are_read_as_by_predict(tmp_path):
    """Pixels without data stay out of the result, and other channels are refused."""
    hole = np.zeros((32, 48), bool)
    hole[:10] = True
    Image.fromarray(np.dstack([make_image(), np.where(hole, 0, 255).astype(np.uint8)])).save(
        tmp_path / "a.tif"
    )
    model = level_model()
    [one] = model.stream(tmp_path)
    np.testing.assert_array_equal(one.result.valid, ~hole)
    np.testing.assert_array_equal(one.result.labels, model.file(tmp_path / "a.tif").labels)
    np.save(tmp_path / "b.npy", make_image()[..., :2])
    with pytest.raises(UserError, match=r"b\.npy: image has 2 channels, the bundle wants 3"):
        list(model.stream(tmp_path / "b.npy"))


def test_bands_in_another_order_are_refused(tmp_path):
    items = "".join(
        f'<Item name="DESCRIPTION" sample="{i}" role="description">{name}</Item>'
        for i, name in enumerate(("VH", "VV"))
    )
    tag = (42112, "s", 0, f"<GDALMetadata>{items}</GDALMetadata>", True)
    image = make_image("sar").transpose(2, 0, 1)
    tifffile.imwrite(
        tmp_path / "a.tif", image, photometric="minisblack", planarconfig="separate", extratags=[tag]
    )
    model = SegmentationModel(SPECS["sar"], CLASSES["sar"], LevelEngine())
    with pytest.raises(UserError, match=r"a\.tif: its bands are VH, VV in this order, wanted are VV, VH"):
        list(model.stream(tmp_path))
