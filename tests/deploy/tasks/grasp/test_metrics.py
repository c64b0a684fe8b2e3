"""Success by the rectangle metric, counted by hand."""

import numpy as np
import pytest

from deploy.errors import UserError
from deploy.tasks.grasp.metrics import ANGLES, IOUS, GraspMetrics, success

TRUE = np.array([[50.0, 50.0, 0.2, 40.0, 20.0], [150.0, 60.0, -1.0, 30.0, 15.0]])


def near(dx=0.0, degrees=0.0, of=0):
    return TRUE[of] + [dx, 0, np.radians(degrees), 0, 0]


@pytest.mark.parametrize(
    ("grasp", "right"),
    [
        (near(), True),
        (near(dx=10), True),
        (near(dx=45), False),  # no overlap
        (near(degrees=29.9), True),
        (near(degrees=30), True),
        (near(degrees=30.1), False),
        (near(degrees=180), True),
        (near(of=1, degrees=-20), True),  # any of the truth
    ],
)
def test_both_criteria(grasp, right):
    assert success([grasp], TRUE)[0] == right


def test_wrap_at_a_right_angle():
    truth = np.array([[50, 50, np.radians(-89.9), 40, 20]])
    assert success([[50, 50, np.radians(89.9), 40, 20]], truth, max_angle=np.radians(0.21))[0]


def scored(*images):
    metrics = GraspMetrics(counts=(1, 3))
    for grasps, truth in images:
        grasps = np.array(grasps).reshape(-1, 5)
        metrics.update(grasps, np.linspace(0.9, 0.1, len(grasps)), truth)
    return metrics


def test_success_at_k():
    images = [([near()], TRUE), ([near(dx=45), near()], TRUE), ([], TRUE), ([near()], TRUE[:0])]
    scores = scored(*images).scores()
    assert scores.images == 3
    assert scores.empty == 1
    assert scores.success == {1: pytest.approx(1 / 3), 3: pytest.approx(2 / 3)}


def test_sweep_falls_as_thresholds_tighten():
    metrics = scored(([near(dx=4, degrees=12)], TRUE), ([near()], TRUE))
    sweep = np.array(metrics.scores().sweep)
    assert sweep.shape == (len(IOUS), len(ANGLES))
    assert (np.diff(sweep, axis=0) <= 0).all()
    assert (np.diff(sweep, axis=1) <= 0).all()
    assert sweep[0, 0] == 1
    assert sweep[-1, -1] == 0.5


def test_precision_and_recall_of_quality():
    metrics = GraspMetrics()
    for quality, grasp in ((0.9, near()), (0.8, near(dx=45)), (0.6, near()), (0.3, near(dx=45))):
        metrics.update(grasp[None], np.array([quality]), TRUE)
    scores = metrics.scores()
    assert scores.precision[85] == 1
    assert scores.recall[85] == 0.25
    assert scores.precision[50] == pytest.approx(2 / 3)
    assert scores.recall[0] == scores.success[1] == 0.5
    assert scores.average_precision == pytest.approx(0.25 * 1 + 0.25 * 2 / 3)


def test_parts_add_up():
    images = [([near()], TRUE), ([near(dx=45)], TRUE), ([], TRUE)]
    whole, part, other = scored(*images), scored(images[0]), scored(*images[1:])
    part.merge(other)
    assert part.scores() == whole.scores()
    with pytest.raises(ValueError, match="cannot be merged"):
        part.merge(GraspMetrics(counts=(1, 2)))


def test_nothing_to_score():
    with pytest.raises(UserError, match="no image has a grasp"):
        scored(([near()], TRUE[:0])).scores()
