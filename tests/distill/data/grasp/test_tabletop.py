"""The built-in table-top scenes: their own in every split, and grasps that the geometry allows."""

import cv2
import numpy as np
import pytest

from deploy.errors import UserError
from deploy.tasks.grasp.geometry import angle_between
from distill.config import DataConfig
from distill.data.grasp.antipodal import Gripper, HeightMap, antipodal_grasps
from distill.data.grasp.objects import CATALOG, FAMILIES, make_object, object_split
from distill.data.grasp.tabletop import EXTENT, GRIPPER, open_tabletop, tabletop_scene
from distill.data.seeding import generator

PIXEL = 0.001


def scene(index=0, size: tuple[int, int] = (150, 200), seed=0, split="train"):
    rng = generator("tabletop", seed, split, index)
    return tabletop_scene(rng, *size, object_split(seed)[split], seed)


def test_a_scene_is_a_function_of_seed_split_and_index():
    splits = open_tabletop(DataConfig("tabletop", size=(64, 64), synthetic_counts=(3, 2, 2)), seed=1)
    again = open_tabletop(DataConfig("tabletop", size=(64, 64), synthetic_counts=(3, 2, 2)), seed=1)
    for reader, same in ((splits.train, again.train), (splits.test, again.test)):
        for index in range(len(reader)):
            one, other = reader[index], same[index]
            assert np.array_equal(one.image.numpy(), other.image.numpy(), equal_nan=True)
            assert np.array_equal(one.grasps, other.grasps)
    assert not np.array_equal(splits.train[0].image.numpy(), splits.train[1].image.numpy(), equal_nan=True)


def test_splits_share_no_object_and_each_has_all_families():
    parts = object_split(0)
    assert sorted(number for part in parts.values() for number in part) == list(range(CATALOG))
    for part in parts.values():
        assert {number % len(FAMILIES) for number in part} == set(range(len(FAMILIES)))
    shown = {number for index in range(10) for number in scene(index, (64, 64), split="test").objects}
    assert shown <= set(parts["test"])


def test_what_the_camera_sees_is_plausible():
    for index in range(8):
        made = scene(index)
        depth = made.depth
        assert depth.shape == (150, 200)
        assert depth.dtype == np.float32
        holes = np.isnan(depth)
        assert holes.mean() < 0.2
        assert 0.45 < depth[~holes].min() < depth[~holes].max() < 0.9
        assert made.rgb.dtype == np.uint8
        assert made.rgb.shape == (150, 200, 3)


def test_grasps_lie_on_what_stands_out_and_fit_the_gripper():
    found = 0
    for index in range(10):
        made = scene(index, (300, 300))
        pixel = EXTENT / 300
        table = np.nanpercentile(made.depth, 95)
        for x, y, _, width, height in made.grasps:
            assert 0 <= x < 300
            assert 0 <= y < 300
            assert width * pixel <= GRIPPER.opening + 1e-9
            assert height == pytest.approx(GRIPPER.jaw / pixel)
        middles = made.grasps[:, :2].round().astype(int)
        around = [made.depth[max(0, y - 8) : y + 9, max(0, x - 8) : x + 9] for x, y in middles]
        found += sum(bool(np.nanmin(patch) < table - 0.008) for patch in around)
        assert len(made.grasps) > 0 or len(made.objects) == 1
    assert found > 100


def test_fingers_have_room():
    """Checked by drawing both fingers into the heights, instead of by sampling points."""
    from distill.data.grasp.tabletop import _heights, _object, _place, _thin_out

    rng = np.random.default_rng(3)
    extent = np.array((0.5, 0.5))
    placed = _place(rng, {number: _object(0, number) for number in (0, 9, 18, 27)}, extent)
    fine = HeightMap(_heights(placed, extent, PIXEL), PIXEL)
    checked = 0
    for _, thing, contours in placed:
        grasps = antipodal_grasps(_thin_out(contours), fine, GRIPPER, rng, 15)
        for x, y, angle, width in grasps:
            half = width / 2 + (GRIPPER.thickness) / 2
            for sign in (-1, 1):
                center = np.array([x + sign * half * np.cos(angle), y - sign * half * np.sin(angle)])
                box = ((center / PIXEL - 0.5).tolist(), (6.0, GRIPPER.jaw / PIXEL - 2), -np.degrees(angle))
                finger = np.zeros(fine.heights.shape, np.uint8)
                cv2.fillPoly(finger, [cv2.boxPoints(box).round().astype(np.int32)], 1)
                below = fine.heights[finger > 0].max(initial=0)
                assert below <= max(thing.height - GRIPPER.reach, GRIPPER.above_table) + 1e-6
                checked += 1
    assert checked > 20


def rectangle(wide, long, angle=0.0, at=(0.25, 0.25)):
    """A box turned counterclockwise, as one contour with a point every 4 mm."""
    half = np.array([(-wide, -long), (wide, -long), (wide, long), (-wide, long)]) / 2
    points = []
    for start, end in zip(half, np.roll(half, -1, axis=0), strict=True):
        steps = int(np.linalg.norm(end - start) / 0.004)
        points.append(start + (end - start) * (np.arange(steps) / steps)[:, None])
    cos, sin = np.cos(angle), np.sin(angle)
    return np.concatenate(points) @ np.array([[cos, -sin], [sin, cos]]) + at


def heights_of(contour, height=0.05):
    canvas = np.zeros((500, 500), np.uint8)
    cv2.fillPoly(canvas, [np.round(contour / PIXEL - 0.5).astype(np.int32)], 1)
    return HeightMap(canvas * np.float32(height), PIXEL)


def grasps_of(contour, gripper=Gripper(), scene_of=None, most=50):  # noqa: B008 - frozen
    fine = scene_of or heights_of(contour)
    return antipodal_grasps((contour,), fine, gripper, np.random.default_rng(0), most)


@pytest.mark.parametrize("angle", [0.0, 0.6, -1.2])
def test_a_long_box_is_held_across(angle):
    grasps = grasps_of(rectangle(0.03, 0.15, angle))
    assert len(grasps) > 20
    # the box's short side lies along `angle`
    assert np.degrees(angle_between(grasps[:, 2], angle)).max() < 23
    assert grasps[:, 3].min() >= 0.03 + 2 * Gripper().margin - 1e-3
    middle = (grasps[:, :2] - 0.25) @ np.array([np.cos(angle), -np.sin(angle)])
    assert np.abs(middle).max() < 0.006  # between the long sides


def test_what_is_wider_than_the_gripper_cannot_be_held():
    assert len(grasps_of(rectangle(0.12, 0.15))) == 0
    assert len(grasps_of(rectangle(0.12, 0.15), Gripper(opening=0.2))) > 0


def test_friction_decides_about_a_wedge():
    """The long sides of a triangle close by 40°: 20° off the normal each, more than friction 0.2 holds."""
    tip, base = np.array([0.25, 0.15]), 0.1 * np.tan(np.radians(20))
    ring = np.array([tip, (0.25 + base, 0.25), (0.25 - base, 0.25)])
    sides = [
        a + (b - a) * (np.arange(25) / 25)[:, None]
        for a, b in zip(ring, np.roll(ring, -1, axis=0), strict=True)
    ]
    contour = np.concatenate(sides)
    slippery, rough = (grasps_of(contour, Gripper(friction=f)) for f in (0.2, 0.6))
    assert len(rough) > 0

    def across(grasps):  # from long side to long side
        return np.degrees(angle_between(grasps[:, 2], 0.0)) < 10

    assert across(rough).any()
    assert not across(slippery).any()


def test_a_neighbor_leaves_no_room():
    contour = rectangle(0.03, 0.15)
    fine = heights_of(contour)
    crowded = HeightMap(fine.heights.copy(), PIXEL)
    crowded.heights[:, 270:320] = 0.08  # a wall 5 mm beside it
    assert len(grasps_of(contour, scene_of=fine)) > 0
    assert len(grasps_of(contour, scene_of=crowded)) == 0


def test_a_ring_can_be_held_by_its_wall():
    ring = next(make_object(0, number) for number in range(2, CATALOG, 8))
    contours = tuple(contour + 0.25 for contour in ring.contours)
    canvas = np.zeros((500, 500), np.uint8)
    cv2.fillPoly(canvas, [np.round(c / PIXEL - 0.5).astype(np.int32) for c in contours], 1)
    grasps = antipodal_grasps(
        contours, HeightMap(canvas * np.float32(0.05), PIXEL), Gripper(), np.random.default_rng(0), 200
    )
    wall = (ring.contours[0].max() - ring.contours[1].max()) + 2 * Gripper().margin
    assert (grasps[:, 3] < 1.6 * wall).any()


def test_size_changes_the_pixels_and_not_the_scene():
    small, large = scene(4, (96, 96)), scene(4, (192, 192))
    assert small.objects == large.objects
    assert len(small.grasps) == len(large.grasps)
    np.testing.assert_allclose((small.grasps[:, :2] + 0.5) * 2, large.grasps[:, :2] + 0.5, atol=1e-9)
    np.testing.assert_allclose(small.grasps[:, 3] * 2, large.grasps[:, 3], atol=1e-9)


@pytest.mark.parametrize(("field", "value"), [("synthetic_counts", (0, 1, 1)), ("size", (16, 64))])
def test_mistakes_are_named(field, value):
    with pytest.raises(UserError, match=f"--data.{field.replace('_', '-')}"):
        open_tabletop(DataConfig("tabletop", **{field: value}), 0)


@pytest.mark.parametrize(("channels", "count"), [("depth", 1), ("rgb", 3), ("rgbd", 4)])
def test_channels(channels, count):
    splits = open_tabletop(
        DataConfig("tabletop", size=(64, 64), channels=(channels,), synthetic_counts=(2, 2, 2)), 0
    )
    assert len(splits.channels) == count
    assert splits.train[0].image.shape == (count, 64, 64)
    assert splits.optical == (channels == "rgb")
