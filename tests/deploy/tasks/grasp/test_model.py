"""A grasp model with an engine that returns known maps: grasps are in pixels of the image."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from deploy.bundle.manifest import InputSpec, Manifest
from deploy.errors import UserError
from deploy.tasks.grasp.geometry import angle_between
from deploy.tasks.grasp.labeled import HEADER, read_csv, read_grasps, write_csv, write_grasps
from deploy.tasks.grasp.model import GraspModel
from deploy.tasks.grasp.pose import Camera
from deploy.tasks.grasp.task import GRASP, GraspScorer
from deploy.tasks.registry import task_named
from distill.data.grasp.splits import CLASSES
from distill.data.grasp.targets import encode

SPEC = InputSpec(("depth",), 96, 96, "float32", "NCHW", mean=(0.0,), std=(0.02,), nodata="nan", depth=0)
GRASP_AT = np.array([[60.0, 30.0, 0.5, 32.0, 14.0]])


class Drawn:
    """An engine that returns the maps of known grasps for any input, and records its inputs."""

    name, file = "drawn fp32", None

    def __init__(self, grasps=GRASP_AT):
        self.maps, self.seen = encode(grasps, 96, 96), None

    def run(self, batch):
        self.seen = batch
        maps = np.repeat(self.maps[None], len(batch), axis=0)
        return {"labels": (maps[:, 0] >= 0.5).astype(np.uint8), "logits": maps}


def model(grasps=GRASP_AT):
    return GraspModel(SPEC, CLASSES, Drawn(grasps))


def only(grasps: np.ndarray | list[np.ndarray]) -> np.ndarray:
    """The grasps of the only image."""
    assert isinstance(grasps, np.ndarray)
    return grasps


def table(height=96, width=96, meters=0.7):
    depth = np.full((height, width), meters, np.float32)
    depth[: height // 2] -= 0.05
    return depth


def test_a_grasp_in_pixels_of_the_image():
    result = model()(table())
    grasps = only(result.grasps)
    assert grasps.shape == (1, 5)
    assert grasps[0, :2] == pytest.approx(GRASP_AT[0, :2], abs=1)
    assert grasps[0, 3] == pytest.approx(32, rel=0.02)
    assert result.labels[30, 60] == 1
    assert result.labels[90, 5] == 0
    assert result.timings.total_ms > 0
    assert result.maps.shape == (4, 96, 96)


def test_an_image_of_another_size():
    result = model()(table(192, 384))
    grasps = only(result.grasps)
    assert grasps[0, :2] == pytest.approx([60.5 * 4 - 0.5, 30.5 * 2 - 0.5], abs=4)
    assert angle_between(grasps[0, 2], np.arctan2(2 * np.sin(0.5), 4 * np.cos(0.5))) < 0.02
    assert result.labels.shape == (192, 384)


def test_depth_reaches_the_network_without_holes_and_about_its_mean():
    engine = Drawn()
    depth = table()
    depth[40:50, 10:20] = np.nan
    result = GraspModel(SPEC, CLASSES, engine)(depth)
    assert engine.seen is not None
    assert np.isfinite(engine.seen).all()
    assert abs(engine.seen.mean()) < 1e-4
    assert not result.valid[45, 15]
    assert result.labels[45, 15] == 255
    assert np.isnan(depth[45, 15])  # the image itself is left alone


def test_the_height_of_the_camera_does_not_matter():
    seen = []
    for meters in (0.5, 0.9):
        engine = Drawn()
        GraspModel(SPEC, CLASSES, engine)(table(meters=meters))
        seen.append(engine.seen)
    np.testing.assert_allclose(seen[0], seen[1], atol=1e-6)


def test_all_hole():
    engine = Drawn()
    result = GraspModel(SPEC, CLASSES, engine)(np.full((96, 96), np.nan, np.float32))
    assert (engine.seen == 0).all()
    assert not result.valid.any()
    assert len(result.grasps) == 0
    assert (result.labels == 255).all()


def test_millimeters_are_warned_of():
    with pytest.warns(RuntimeWarning, match="millimeters"):
        model()(table(meters=700.0))


def test_a_batch():
    result = model()([table(), table(meters=0.6)])
    assert [len(grasps) for grasps in result.grasps] == [1, 1]
    assert result.labels.shape == (2, 96, 96)


def test_from_several_threads():
    shared = model()
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: shared(table()).grasps, range(16)))
    assert all(np.array_equal(grasps, results[0]) for grasps in results)


def test_poses_of_the_image_itself():
    poses = model()(table()).poses(Camera(fx=100.0, fy=100.0, cx=48.0, cy=48.0))
    assert poses.points[0, 2] == pytest.approx(0.65)
    assert poses.openings[0] == pytest.approx(32 / 100 * 0.65, rel=0.02)


def test_wrong_channels():
    with pytest.raises(UserError, match="3 channels, the bundle wants 1"):
        model()(np.zeros((96, 96, 3), np.float32))


def test_scorer_and_task():
    assert task_named("grasp") is GRASP
    scorer = GraspScorer()
    scorer.update(model()(table()), GRASP_AT, np.ones((96, 96), bool))
    scorer.update(model(np.array([[20.0, 80.0, 0, 20, 10]]))(table()), GRASP_AT, np.ones((96, 96), bool))
    assert scorer.score() == 0.5
    assert list(scorer.details()) == ["success@5"]
    other = GraspScorer()
    for mine, theirs in zip(other.counts(), scorer.counts(), strict=True):
        mine += theirs
    assert other.score() == 0.5


@pytest.fixture
def manifest():
    return Manifest(task="grasp", name="toy", classes=CLASSES, input=SPEC, outputs=())


def test_labeled_data_and_back(tmp_path, manifest):
    truth = np.array([[10.5, 20.25, -1.2, 30.0, 12.0], [50.0, 60.0, 0.3, 20.0, 8.0]])
    samples = [("a", table()[..., None], truth, None), ("b", table()[..., None], truth[:0], None)]
    assert write_grasps(tmp_path, samples) == 2
    read = list(read_grasps(tmp_path, manifest))
    assert [name for name, *_ in read] == ["00000-a", "00001-b"]
    np.testing.assert_allclose(read[0][2], truth, atol=1e-4)
    assert read[1][2].shape == (0, 5)
    assert np.array_equal(read[0][1][..., 0], table())
    assert read[0][3].all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "begins with ''"),
        ("x,y\n1,2\n", "begins with 'x,y'"),
        (f"{HEADER}\n1,2,3,4\n", r"line 2: '1,2,3,4' is not"),
        (f"{HEADER}\n1,2,3,nan,5\n", "line 2"),
        (f"{HEADER}\n1,2,3,0,5\n", "sizes above 0"),
    ],
)
def test_damaged_grasps_are_named(tmp_path, text, message):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"a\.csv.*{message}"):
        read_csv(path)


def test_missing_grasps_are_named(tmp_path, manifest):
    with pytest.raises(UserError, match="grasps: no such folder"):
        list(read_grasps(tmp_path, manifest))
    write_grasps(tmp_path, [("a", table()[..., None], GRASP_AT, None)])
    (tmp_path / "grasps" / "00000-a.csv").unlink()
    with pytest.raises(UserError, match=r"00000-a\.csv: cannot be read"):
        list(read_grasps(tmp_path, manifest))


def test_predictions_carry_their_quality(tmp_path):
    write_csv(tmp_path / "out.csv", GRASP_AT, np.array([0.75]))
    header, row = (tmp_path / "out.csv").read_text().splitlines()
    assert header == f"{HEADER},quality"
    assert row.split(",")[2] == f"{np.degrees(0.5):.4f}"
    assert row.split(",")[-1] == "0.7500"
