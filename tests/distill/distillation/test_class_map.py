"""A teacher's classes in terms of the data's: sums of probabilities, void, and mistakes in the file."""

import json

import pytest
import torch
from torch.nn import functional as F

from deploy.errors import UserError
from distill.distillation.class_map import (
    ClassMap,
    lines_of,
    mapped,
    read_class_map,
    same_classes,
    void_margin,
)

THEIRS, OURS = ("car", "truck", "road", "sky"), ("vehicle", "road", "person")


@pytest.fixture
def logits():
    return torch.randn(2, 4, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def read(tmp_path, written, theirs=THEIRS, outputs=4, ours=OURS):
    path = tmp_path / "map.json"
    path.write_text(written if isinstance(written, str) else json.dumps(written))
    return read_class_map(path, theirs, outputs, ours)


def test_the_identity_changes_nothing(logits):
    classes = same_classes("it", ("a", "b", "c", "d"), 4, ("a", "b", "c", "d"))
    assert classes.changes_nothing
    assert mapped(logits, classes) is logits
    assert same_classes("it", (), 4, ("a", "b", "c", "d")) == classes


def test_classes_of_another_order_are_found_by_name(logits):
    classes = same_classes("it", ("d", "a", "c", "b"), 4, ("a", "b", "c", "d"))
    torch.testing.assert_close(mapped(logits, classes), logits[:, [1, 3, 2, 0]], rtol=0, atol=0)


def test_probabilities_of_merged_classes_are_added(logits):
    classes = ClassMap((0, 0, 1, 2), 3)
    p, merged = F.softmax(logits, 1), F.softmax(mapped(logits, classes), 1)
    torch.testing.assert_close(merged[:, 0], p[:, 0] + p[:, 1], rtol=1e-12, atol=0)
    torch.testing.assert_close(merged[:, 1:], p[:, 2:], rtol=1e-12, atol=0)


def test_void_wins_where_its_probability_is_the_largest(logits):
    classes = ClassMap((0, None, 1, None), 2)
    p = F.softmax(logits, 1)
    void, best = p[:, 1] + p[:, 3], torch.maximum(p[:, 0], p[:, 2])
    margin = void_margin(logits, classes)
    assert margin.shape == (2, 1, 3, 5)
    assert (margin[:, 0] > 0).equal(void > best)
    assert 0 < (margin > 0).sum() < margin.numel()
    torch.testing.assert_close(margin[:, 0], (void / best).log(), rtol=1e-9, atol=1e-12)


def test_without_void_the_other_probabilities_are_scaled_to_one(logits):
    merged = F.softmax(mapped(logits, ClassMap((0, None, 1, None), 2)), 1)
    p = F.softmax(logits, 1)[:, [0, 2]]
    torch.testing.assert_close(merged, p / p.sum(1, keepdim=True), rtol=1e-12, atol=0)


def test_a_class_that_the_teacher_lacks_is_never_predicted(logits):
    classes = ClassMap((0, 0, 1, 1), 3)
    merged = mapped(logits, classes)
    assert merged.shape[1] == 3
    assert torch.isfinite(merged).all()
    assert not (merged.argmax(1) == 2).any()
    assert lines_of(classes, OURS) == [
        "warning: no class of the teacher is person: these are learned from labels alone, and pixels labeled so do not"
        " count for the distillation"
    ]
    assert lines_of(ClassMap((0, 1, 2, None), 3), OURS) == []


def test_a_file_names_classes_voids_and_others(tmp_path):
    written = {"car": "vehicle", "truck": "vehicle", "sky": None}
    assert read(tmp_path, written) == ClassMap((0, 0, 1, None), 3)  # road is a class of both
    assert read(tmp_path, {"car": "vehicle", "*": None}) == ClassMap((0, None, 1, None), 3)


def test_of_a_teacher_without_names_the_file_has_them_in_order(tmp_path):
    assert read(tmp_path, {"x": "road", "y": "person", "z": None}, (), 3) == ClassMap((1, 2, None), 3)
    with pytest.raises(UserError, match="names 2 classes, the teacher has 4 without names; name all of them"):
        read(tmp_path, {"x": "road", "y": "person"}, ())


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("{", "map.json: .*write .*a class of the teacher"),
        ('["car"]', "map.json: .*write"),
        ({"car": 3}, "map.json: .*write"),
        ({"car": "vehicle"}, "says nothing of the teacher's class 'truck'"),
        (
            {"cars": "vehicle", "*": None},
            r"no class 'cars' \(did you mean car\?\); it has car, truck, road, sky",
        ),
        ({"car": "vehicles", "*": None}, r"no class 'vehicles' \(did you mean vehicle\?\)"),
        ({"car": "road", "*": None}, "leaves the teacher 1 of the data's 3 classes"),
    ],
)
def test_mistakes_in_the_file(tmp_path, written, words):
    with pytest.raises(UserError, match=words):
        read(tmp_path, written)
    with pytest.raises(UserError, match="cannot be read"):
        read_class_map(tmp_path / "none.json", THEIRS, 4, OURS)


def test_other_classes_without_a_map():
    with pytest.raises(
        UserError, match=r"it: has 4 classes \(car, truck, road, sky\), the data has 3 .*--teacher.classes"
    ):
        same_classes("it", THEIRS, 4, OURS)
    with pytest.raises(UserError, match=r"it: has 4 classes, the data has 3"):
        same_classes("it", (), 4, OURS)
