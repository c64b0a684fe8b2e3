"""The grasp sample's checks, and splits by image and by object."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deploy.errors import UserError
from distill.data.grasp.sample import make_grasp_sample
from distill.data.grasp.split_rules import folds, image_wise, object_wise

GRASP = [10.0, 8.0, 0.3, 12.0, 6.0]


def sample(grasps, image=None):
    image = np.zeros((20, 30, 1), np.float32) if image is None else image
    return make_grasp_sample(image, np.array(grasps), id="a", object="mug", source="a.txt")


def test_units_types_and_identity():
    made = sample([GRASP], np.full((20, 30, 3), 200, np.uint8))
    assert made.image.shape == (3, 20, 30)
    assert made.image.dtype == torch.float32
    assert made.image.unique().tolist() == [200.0]
    assert made.grasps.dtype == np.float64
    assert made.grasps == pytest.approx(np.array([GRASP]))
    assert (made.id, made.object) == ("a", "mug")


def test_infinite_depth_is_a_hole():
    image = np.array([[[0.5], [np.inf], [np.nan]]], np.float32)
    assert sample([], image).image.isnan().flatten().tolist() == [False, True, True]


def test_no_grasps_is_legal():
    assert sample([]).grasps.shape == (0, 5)
    assert sample(np.zeros((0, 5))).grasps.shape == (0, 5)


def test_angles_are_wrapped():
    assert sample([[10, 8, 2.0, 12, 6]]).grasps[0, 2] == pytest.approx(2 - np.pi)


@pytest.mark.parametrize(
    ("grasp", "kept"),
    [
        ([-3, 8, 0, 12, 6], True),  # the center alone is outside
        ([-7, 8, 0, 12, 6], False),
        ([10, 25, 0, 12, 6], False),
        ([10, 25, np.pi / 2, 12.1, 6], True),
        ([36, 8, 0, 12, 6], False),
    ],
)
def test_a_grasp_without_a_part_in_the_image_is_dropped(grasp, kept):
    assert len(sample([GRASP, grasp]).grasps) == 1 + kept


@pytest.mark.parametrize(
    ("grasps", "message"),
    [
        ([GRASP, [1, 2, np.nan, 3, 4]], r"a\.txt: grasp 2 is not finite \(1, 2, nan, 3, 4\)"),
        ([[1, 2, 0, 0, 4]], r"a\.txt: grasp 1 has a size that is not above 0"),
        ([[1, 2, 0, 3]], r"a\.txt: grasps are N×5 .* shape \(1, 4\)"),
    ],
)
def test_bad_grasps_are_named(grasps, message):
    with pytest.raises(UserError, match=message):
        sample(grasps)


def test_a_flat_image_is_refused():
    with pytest.raises(UserError, match=r"H×W×C .* shape \(20, 30\)"):
        sample([GRASP], np.zeros((20, 30)))


@given(st.lists(st.integers(0, 30), min_size=60, max_size=200), st.integers(0, 5))
def test_object_wise_parts_are_disjoint_complete_and_share_no_object(numbers, seed):
    objects = [f"object{number}" for number in numbers]
    if len(set(objects)) < 20:
        return
    parts = object_wise(objects, (0.5, 0.25, 0.25), seed)
    assert sorted(index for part in parts for index in part) == list(range(len(objects)))
    seen = [{objects[index] for index in part} for part in parts]
    assert sum(map(len, seen)) == len(set(objects))
    assert object_wise(objects, (0.5, 0.25, 0.25), seed) == parts


def test_image_wise_has_the_fractions_and_depends_on_the_seed():
    parts = image_wise(885, seed=0)
    assert [len(part) for part in parts] == pytest.approx([708, 88, 89], abs=1)
    assert parts == image_wise(885, seed=0)
    assert parts != image_wise(885, seed=1)


def test_objects_of_many_images_keep_the_fractions_about_right():
    objects = [f"o{index // 4}" for index in range(880)]
    assert [len(part) for part in object_wise(objects)] == pytest.approx([704, 88, 88], abs=4)


def test_folds():
    parts = folds([f"o{index // 3}" for index in range(60)], 5)
    assert [len(part) for part in parts] == [12] * 5
    with pytest.raises(UserError, match="2 folds or more, not 1"):
        folds(["a", "b"], 1)


@pytest.mark.parametrize("fractions", [(), (0.5, 0.6), (1.0, 0.0)])
def test_fractions_must_make_sense(fractions):
    with pytest.raises(UserError, match="above 0 with sum 1"):
        image_wise(10, fractions)


def test_too_few_objects_for_the_parts():
    with pytest.raises(UserError, match="1 different objects are too few"):
        object_wise(["same"] * 50)
