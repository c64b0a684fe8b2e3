"""What results can do in Python, of every task: be saved, shown and listed; those of batches are refused."""

from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image
import pytest
from shapely.geometry import shape

from deploy.errors import UserError
from deploy.files.images import read_image, read_mask, write_png
from deploy.inference.call import Timings
from deploy.tasks.grasp.labeled import HEADER
from deploy.tasks.grasp.model import GraspResult
from deploy.tasks.regression.levels import LEVELS
from deploy.tasks.regression.model import RegressionResult
from deploy.tasks.result import OneResult
from deploy.tasks.segmentation.model import SegmentationResult
from deploy.visualize import colorize, overlay
from tests.deploy.tiny import CLASSES

SIZE = (20, 30)
IMAGE = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
LABELS = np.repeat(np.arange(30, dtype=np.uint8)[None] // 10, 20, 0)
"""Three classes, ten columns each."""
TIMINGS = Timings(1, 2, 3)
GRASPS, QUALITIES = np.array([[12.0, 8, 0.5, 6, 3], [20, 15, 0, 5, 2]]), np.array([0.75, 0.5])


def segmentation(labels: np.ndarray) -> SegmentationResult:
    return SegmentationResult(labels, labels < 255, TIMINGS, None, SIZE, CLASSES["rgb"])


def regression(labels: np.ndarray) -> RegressionResult:
    return RegressionResult(labels / np.float32(2), labels, labels < 2, TIMINGS)


def grasps(labels: np.ndarray) -> GraspResult:
    return GraspResult(GRASPS, QUALITIES, labels, labels < 255, np.zeros((4, 5, 5)), TIMINGS, IMAGE)


MAKERS: list[Callable[[np.ndarray], Any]] = [segmentation, regression, grasps]


def test_labels_or_their_colors_over_the_image(tmp_path):
    result = segmentation(LABELS)
    assert (read_mask(result.save(tmp_path / "labels.png")) == LABELS).all()
    write_png(tmp_path / "image.png", IMAGE)
    for image in (IMAGE, tmp_path / "image.png", str(tmp_path / "image.png")):
        drawn = read_image(result.save(tmp_path / "drawn.PNG", image))
        assert (drawn == overlay(IMAGE, LABELS, CLASSES["rgb"])).all()
    assert sum(shape(one["geometry"]).area for one in result.polygons()) == LABELS.size


def test_a_map_as_numbers_and_in_colors(tmp_path):
    result = regression(LABELS)
    assert (np.load(result.save(tmp_path / "map.npy")) == result.values).all()
    assert (read_image(result.save(tmp_path / "map.png")) == colorize(LABELS, LEVELS)).all()
    assert (read_image(result.save(tmp_path / "map.png", IMAGE)) == overlay(IMAGE, LABELS, LEVELS)).all()
    assert result.to_pandas().to_dict("records") == [{"pixels": 400, "min": 0, "mean": 0.25, "max": 0.5}]
    assert np.isnan(regression(LABELS + 2).rows()[0]["mean"])


def test_grasps_on_their_image_and_as_a_table(tmp_path):
    result = grasps(LABELS)
    own, other = (read_image(result.save(tmp_path / "a.png", image)) for image in (None, 0 * IMAGE))
    assert own.shape == other.shape
    assert (own != other).any()
    assert result.save(tmp_path / "a.csv").read_text().splitlines()[0] == f"{HEADER},quality"
    table = result.to_pandas()
    assert table["quality"].tolist() == [0.75, 0.5]
    assert table[["x", "y"]].to_numpy().tolist() == [[12, 8], [20, 15]]


def test_classes_as_a_table():
    table = segmentation(LABELS).to_pandas()
    assert table["name"].tolist() == ["red", "green", "blue"]
    assert table["pixels"].tolist() == [200, 200, 200]
    assert table["share"].sum() == pytest.approx(1)


@pytest.mark.parametrize("make", MAKERS)
def test_show_opens_what_is_drawn(make, monkeypatch):
    shown: list[PIL.Image.Image] = []
    monkeypatch.setattr(PIL.Image.Image, "show", lambda picture: shown.append(picture))
    make(LABELS).show()
    make(LABELS).show(IMAGE)
    assert len(shown) == 2
    assert all(one.mode == "RGB" for one in shown)


@pytest.mark.parametrize("make", MAKERS)
def test_results_of_batches_are_refused(make, tmp_path):
    """The regions of the first image were given for those of all."""
    batch: OneResult = make(np.stack([LABELS, LABELS]))
    calls = [lambda: batch.save(tmp_path / "a.png"), batch.show, batch.rows, batch.to_pandas]
    calls += [getattr(batch, name) for name in ("polygons",) if hasattr(batch, name)]
    for call in calls:
        with pytest.raises(
            UserError, match=r"is the result of 2 images; take each of model\.batch\(images\)"
        ):
            call()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("make", MAKERS)
def test_other_files_and_images_are_refused(make, tmp_path):
    with pytest.raises(
        UserError, match=r"map\.jpg: a result is saved as .*\.png.*; give a name that ends so"
    ):
        make(LABELS).save(tmp_path / "map.jpg")
    with pytest.raises(
        UserError, match="save: the image is 10×30, the result 20×30; give the image that was"
    ):
        make(LABELS).save(tmp_path / "map.png", IMAGE[:10])
    assert not list(tmp_path.iterdir())
