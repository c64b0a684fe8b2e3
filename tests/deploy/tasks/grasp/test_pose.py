"""From pixels to meters: projecting a pose with the camera gives the grasp again."""

import numpy as np
import pytest

from deploy.errors import UserError
from deploy.tasks.grasp.pose import Camera, to_camera

CAMERA = Camera(fx=600.0, fy=500.0, cx=320.0, cy=240.0)


def flat(meters=0.7):
    return np.full((480, 640), meters, np.float32)


def test_a_grasp_at_a_known_place():
    poses = to_camera(np.array([[380.0, 240.0, 0.0, 60.0, 30.0]]), flat(0.6), CAMERA)
    assert poses.points[0] == pytest.approx([0.06, 0, 0.6], abs=1e-6)
    assert poses.openings[0] == pytest.approx(60 / 600 * 0.6)


def test_other_focal_lengths_along_y():
    poses = to_camera(np.array([[320.0, 240.0, np.pi / 2, 50.0, 30.0]]), flat(0.5), CAMERA)
    assert poses.openings[0] == pytest.approx(50 / 500 * 0.5)


def test_frames_are_right_handed_and_run_along_the_opening():
    grasps = np.array([[100.0, 50.0, 0.7, 40.0, 20.0], [400.0, 300.0, -1.2, 40.0, 20.0]])
    poses = to_camera(grasps, flat(), CAMERA)
    for grasp, matrix in zip(grasps, poses.matrices, strict=True):
        turn = matrix[:3, :3]
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(turn) == pytest.approx(1)
        ahead = matrix[:3, 3] + 0.01 * turn[:, 0]
        dx = CAMERA.fx * ahead[0] / ahead[2] + CAMERA.cx - grasp[0]
        dy = CAMERA.fy * ahead[1] / ahead[2] + CAMERA.cy - grasp[1]
        assert np.arctan2(-dy, dx) == pytest.approx(grasp[2])


def test_holes_are_looked_around():
    depth = flat(0.7)
    depth[235:246, 315:326] = np.nan
    grasp = np.array([[320.0, 240.0, 0.0, 30.0, 15.0]])
    assert to_camera(grasp, depth, CAMERA).points[0, 2] == pytest.approx(0.7)
    depth[:] = 0
    assert np.isnan(to_camera(grasp, depth, CAMERA).points).all()


def test_no_grasp_no_pose():
    poses = to_camera(np.zeros((0, 5)), flat(), CAMERA)
    assert (poses.points.shape, poses.matrices.shape, poses.openings.shape) == ((0, 3), (0, 4, 4), (0,))


def test_millimeters_are_warned_of():
    with pytest.warns(RuntimeWarning, match="millimeters"):
        to_camera(np.array([[320.0, 240.0, 0.0, 30.0, 15.0]]), flat(700.0), CAMERA)


def test_a_camera_that_is_none():
    with pytest.raises(UserError, match="focal lengths"):
        Camera(fx=0.0, fy=1.0, cx=0.0, cy=0.0)
    with pytest.raises(UserError, match="H×W"):
        to_camera(np.zeros((1, 5)), np.zeros((4, 4, 1)), CAMERA)


@pytest.mark.parametrize(("x", "y"), [(-30, 240), (320, -30), (700, 240), (320, 530)])
def test_there_is_no_depth_outside_the_image(x, y):
    poses = to_camera(np.array([[x, y, 0.0, 60.0, 30.0]]), flat(0.6), CAMERA)
    assert np.isnan(poses.points).all()
