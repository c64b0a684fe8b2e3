"""Fields of a configuration changed by their names."""

from dataclasses import replace
from pathlib import Path

import pytest

from deploy.errors import UserError
from distill.config import ModelConfig
from distill.overrides import field_names, with_changes
from distill.run import parse, preset

QUICK = preset("quick")


def test_fields_are_named_by_their_dotted_path():
    names = field_names()
    assert {"data.root", "student_train.steps", "seed"} <= set(names)
    assert "data" not in names


@pytest.mark.parametrize(
    "changes",
    [
        {"student_train.steps": 3, "student_train.lr": 1, "out": "runs/x"},
        {"student_train": {"steps": 3, "lr": 1.0}, "out": Path("runs/x")},
        {"student_train": replace(QUICK.student_train, steps=3), "student_train.lr": 1.0, "out": "runs/x"},
    ],
)
def test_dotted_nested_and_whole(changes: dict):
    training = replace(QUICK.student_train, steps=3, lr=1.0)
    assert with_changes(QUICK, changes) == replace(QUICK, student_train=training, out=Path("runs/x"))


def test_values_take_the_type_of_their_field():
    changed = preset(
        "quick", **{"data.size": [64, 48], "distill.teachers": ["a", Path("b")], "data.root": None}
    )
    assert changed.data.size == (64, 48)
    assert changed.distill.teachers == (Path("a"), Path("b"))
    assert preset("quick") == QUICK


@pytest.mark.parametrize(
    "changes",
    [{"data.unlabelled": "a"}, {"data": {"unlabelled": "a"}}],  # codespell:ignore unlabelled
)
def test_the_other_spelling_of_unlabeled_will_do(changes):
    assert preset("folder", **changes) == preset("folder", **{"data.unlabeled": "a"})


@pytest.mark.parametrize("root", ["photos", Path("photos")])
def test_a_folder_and_names_stand_for_their_fields(root):
    """The student is of another family, so what suits the preset's goes, too."""
    short = preset("folder", data=root, teacher="pspnet/resnet18", student="unet")
    fields = {"data.root": "photos", "teacher.arch": "pspnet/resnet18", "student.arch": "unet"}
    assert short == preset("folder", **fields)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"student_train.step": 3},
            r"unknown field student_train\.step \(did you mean student_train\.steps\?\)",
        ),
        ({"student_train": {"steps.x": 3}}, r"unknown field student_train\.steps\.x"),
        ({"nothing": 3}, "unknown field nothing; `edgedistill run PRESET --help` lists all"),
        ({"seed": "1"}, "seed='1': Expected `int`, got `str`"),
        ({"out": 1}, "out=1: Expected a path, got int"),
        ({"data.size": (3,)}, r"data\.size=\(3,\): Expected `array` of length 2"),
        ({"data": 3}, "data=3: Expected `object`, got `int`"),
        ({"precision": "fp8"}, "precision='fp8': choose one of 'auto', 'fp32', 'bf16', 'fp16'"),
        ({"student_train.steps": -1}, r"^student_train\.steps -1: must be at least 0$"),
        ({"loss.task": object}, r"loss\.task=<class 'object'>: there is no field of type type"),
    ],
)
def test_mistakes_are_one_line(changes: dict, message: str):
    with pytest.raises(UserError, match=message):
        with_changes(QUICK, changes)


def test_an_unknown_preset_is_refused():
    with pytest.raises(
        UserError, match=r"unknown preset 'quik' \(did you mean quick\?\); presets: smoke, quick"
    ):
        preset("quik")


@pytest.mark.parametrize(
    "line", ["--student-train.steps -1", "--student_train.steps=-1 --student-train.lr 1"]
)
def test_a_mistake_on_the_command_line_names_the_training(line: str):
    with pytest.raises(UserError, match=r"^--student-train\.steps -1: must be at least 0$"):
        parse(["quick", "--teacher-train.steps", "10", *line.split()])


@pytest.mark.parametrize("arch", ["edge-small", "unet", "grconvnet"])
def test_another_family_does_not_inherit_options_that_it_lacks(arch: str):
    student = preset("cornell", **{"student.arch": arch}).student
    assert parse(["cornell", f"--student.arch={arch}"]).student == student
    assert not student.pretrained
    assert parse(["cornell", "--student.arch", "deeplabv3plus/resnet18"]).student.pretrained


def test_a_backbone_that_keeps_its_stride_does_not_inherit_another():
    vit, pyramid = "pspnet/vit_small_patch14_dinov2", "pspnet/pvt_v2_b0"
    teacher = preset("quick", **{"teacher.arch": vit}).teacher
    assert parse(["quick", "--teacher.arch", vit]).teacher == teacher
    assert (teacher.output_stride, teacher.head_channels) == (ModelConfig(vit).output_stride, 128)
    typed = ["--teacher.output-stride", "16"]  # refused by the network
    assert parse(["quick", "--teacher.arch", vit, *typed]).teacher.output_stride == 16
    assert preset("quick", **{"teacher.arch": "pspnet/resnet18"}).teacher.output_stride == 16

    finer = [preset("ombria", **{"student.arch": arch}).student.detail for arch in (vit, pyramid)]
    assert finer == [None, True]
