"""Finer outputs: chosen from the labels, kept where they are asked for, and said aloud."""

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from deploy.errors import UserError
from distill.config import DataConfig, ModelConfig, RunConfig, TrainConfig
from distill.data.splits import Splits
from distill.data.structures import STRIDES, Ceiling, ClassStructures, Structures
from distill.pipeline import resolution
from distill.pipeline.prepare import prepare
from distill.pipeline.resolution import (
    Form,
    forms_of,
    recommended,
    size_warnings,
    stride_warnings,
    with_detail,
)
from distill.run import parse
from distill.tasks.registry import open_splits, task_of
from distill.tasks.task import TrainingTask
from student.zoo import build_network

EDGE = (Form(8, {}), Form(4, {"detail": True}), Form(2, {"output_stride": 2}))


def labels(*ceilings: tuple[float, ...], resized: float | None = 1.0) -> Structures:
    """Structures whose classes can have these IoUs at strides 4, 8, …; further strides as the last of them."""
    count = len(ceilings[0])
    filled = [*ceilings, *[ceilings[-1]] * (len(STRIDES) - len(ceilings))]
    return Structures(
        1,
        tuple(ClassStructures(f"class {number}", 1, None, None, resized) for number in range(count)),
        tuple(Ceiling(s, sum(iou) / count, 0.5, iou) for s, iou in zip(STRIDES, filled, strict=True)),
    )


def run_of(student: ModelConfig, teacher: ModelConfig | None = None, **fields: Any) -> RunConfig:
    train = TrainConfig(steps=1, batch_size=2)
    small = ModelConfig("edge/4", detail=False)
    data = DataConfig("synthetic", size=(48, 48), synthetic_counts=(8, 1, 1))
    return RunConfig(data, teacher or small, student, train, train, **{"precision": "fp32", **fields})


def decided(config: RunConfig, found: Structures | None) -> tuple[RunConfig, list[str]]:
    """`with_detail` for labels that allow what `found` says."""
    splits = cast("Splits", SimpleNamespace(channels=("r", "g", "b")))
    task = cast("TrainingTask", SimpleNamespace(outputs=2, structures=lambda *_: found))
    return with_detail(config, splits, task)


class TestRecommended:
    @pytest.mark.parametrize(
        ("at_8", "wanted"),
        [((0.98, 0.97), 8), ((0.95, 0.96), 4), ((1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.82), 8)],
    )
    def test_where_the_mean_loses_more_than_three_points(self, at_8, wanted):
        assert recommended(labels((1.0,) * len(at_8), at_8), EDGE).stride == wanted

    def test_where_one_class_of_many_is_too_small(self):
        many = (1.0,) * 20
        assert recommended(labels((*many, 1.0), (*many, 0.79)), EDGE).stride == 4
        assert recommended(labels((*many, 1.0), (*many, 0.81)), EDGE).stride == 8

    def test_beyond_a_finer_stride_only_where_much_is_lost(self):
        assert recommended(labels((0.91, 0.91), (0.8, 0.8)), EDGE).stride == 4
        assert recommended(labels((0.89, 0.89), (0.8, 0.8)), EDGE).stride == 2
        many = (1.0,) * 20
        assert recommended(labels((*many, 0.51), (*many, 0.2)), EDGE).stride == 4
        assert recommended(labels((*many, 0.49), (*many, 0.2)), EDGE).stride == 2

    def test_the_finest_where_none_suffices(self):
        assert recommended(labels((0.7, 0.9), (0.2, 0.5)), EDGE).stride == 2
        assert recommended(labels((0.1, 0.1)), EDGE[:1]).stride == 8


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (ModelConfig("edge/4"), (8, 4, 2)),
        (ModelConfig("edge/4", output_stride=4), (4, 2)),
        (ModelConfig("edge/4", detail=True), (4, 2)),
        (ModelConfig("edge-nano", output_stride=2), (2,)),
        (ModelConfig("pspnet/resnet18", output_stride=16, head_channels=16), (16, 2)),
        (ModelConfig("deeplabv3plus/mobilenetv2_100"), (4,)),
        (ModelConfig("unet"), (1,)),
    ],
)
def test_forms_have_the_strides_of_the_network(model, expected):
    forms = forms_of(model, 3, 2)
    assert tuple(form.stride for form in forms) == expected
    for form in forms:
        if model.arch.startswith(("edge", "unet")):
            options = {"output_stride": model.output_stride, "detail": bool(model.detail), **form.options}
            network = build_network(model.arch, 3, 2, **options).eval()
            assert network(torch.zeros(1, 3, 64, 64)).logits.shape[-1] * form.stride == 64


class TestDecided:
    def test_each_network_for_its_own_stride(self):
        config = run_of(
            ModelConfig("edge/4"), ModelConfig("pspnet/resnet18", output_stride=16, head_channels=8)
        )
        found, lines = decided(config, labels((0.99, 0.99), (0.98, 0.97), (0.9, 0.5)))
        assert (found.teacher.detail, found.student.detail) == (True, False)
        teacher, student = lines
        assert "teacher pspnet/resnet18 gets outputs at stride 2: stride 16 allows about 70% mIoU" in teacher
        assert "class 1 50%" in teacher
        assert "--teacher.no-detail" in teacher
        assert "student edge/4 keeps its stride: stride 8 allows about 98% mIoU" in student
        assert student.endswith("; --student.detail for 4 or --student.output-stride 2 for 2")

    def test_what_was_asked_for_stays_with_a_warning(self):
        found, lines = decided(run_of(ModelConfig("edge/4", detail=False)), labels((1.0, 0.9), (0.9, 0.3)))
        assert found.student.detail is False
        (warning,) = lines
        assert warning.startswith("warning: teacher edge/4 and student edge/4: outputs at stride 8")
        assert "class 1 30%" in warning
        switches = [
            f"--{one}.{form}" for one in ("teacher", "student") for form in ("detail", "output-stride 2")
        ]
        assert warning.endswith(f"; finer: {', '.join(switches)}, a larger --data.size")
        found, lines = decided(
            run_of(ModelConfig("edge/4", detail=True), no_teacher=True), labels((1.0, 0.9), (0.9, 0.3))
        )
        assert found.student.detail is True
        assert lines == []

    def test_the_finest_for_what_stride_4_cannot_draw(self):
        found, lines = decided(
            run_of(ModelConfig("edge/4"), no_teacher=True), labels((0.67, 0.95), (0.25, 0.9))
        )
        assert (found.student.detail, found.student.output_stride) == (False, 2)
        (line,) = lines
        assert "student edge/4 gets outputs at stride 2: stride 8 allows about 57% mIoU" in line
        assert line.endswith("; --student.no-detail keeps it, --student.detail is between")

    def test_labels_that_are_no_classes(self):
        found, lines = decided(run_of(ModelConfig("edge/4")), None)
        assert (found.student.detail, lines) == (False, [])

    def test_a_resumed_run_keeps_its_decision(self, tmp_path):
        config = run_of(ModelConfig("edge/4"), out=tmp_path, resume=True)
        (tmp_path / "config.json").write_text(json.dumps({"student.detail": True, "teacher.detail": False}))
        found, lines = decided(config, labels((1.0, 1.0)))
        assert (found.student.detail, lines) == (True, [])
        form = {"student.detail": False, "student.output_stride": 2, "teacher.detail": False}
        (tmp_path / "config.json").write_text(json.dumps(form))
        found, lines = decided(config, labels((1.0, 1.0)))
        assert (found.student.detail, found.student.output_stride, lines) == (False, 2, [])
        (tmp_path / "config.json").write_text("{")
        with pytest.raises(UserError, match=r"config.json: cannot be read"):
            decided(config, labels((1.0, 1.0)))

    def test_weights_keep_the_form_of_their_network(self, monkeypatch, tmp_path):
        monkeypatch.setattr(resolution, "find_metadata", lambda path: {"model": {"detail": True}})
        config = run_of(ModelConfig("edge/4"), ModelConfig("edge/4", weights=tmp_path / "best.safetensors"))
        found, _ = decided(config, labels((1.0, 1.0)))
        assert (found.teacher.detail, found.student.detail) == (True, False)
        form = {"detail": False, "output_stride": 2}
        monkeypatch.setattr(resolution, "find_metadata", lambda path: {"model": form})
        found, _ = decided(config, labels((1.0, 1.0)))
        assert (found.teacher.output_stride, found.student.output_stride) == (2, 8)
        form = {"detail": True}  # a file of before
        found, _ = decided(config, labels((1.0, 1.0)))
        assert (found.teacher.output_stride, found.teacher.detail) == (8, True)


def test_warnings_name_the_smallest_classes_first():
    found = labels((0.5, 0.9, 0.1, 0.7, 0.6, 0.2), resized=0.7)
    (line,) = stride_warnings(found, "student unet", 4)
    assert "class 2 10%, class 5 20%, class 0 50%, class 4 60%, 1 more" in line
    assert list(stride_warnings(found, "student unet", 2)) == []
    (line,) = size_warnings(found, (48, 64))
    assert line.startswith("warning: --data.size 48 64: ")
    assert "class 0 70%" in line
    assert list(size_warnings(labels((0.1,)), (48, 64))) == []


def test_a_run_records_what_it_decided(tmp_path, capsys):
    config = run_of(ModelConfig("edge/4"), out=tmp_path / "run", baseline=False)
    context = prepare(config)
    assert context.config.student.detail is True  # ripples of a few pixels
    assert "student edge/4 gets outputs at stride 4" in capsys.readouterr().err
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (stored["student.detail"], stored["teacher.detail"]) == (True, False)
    assert prepare(replace(config, resume=True)).config == replace(context.config, resume=True)
    with pytest.raises(UserError, match=r"student.detail was True, is False"):
        prepare(replace(config, resume=True, student=replace(config.student, detail=False)))


def test_tasks_without_classes_measure_nothing():
    for preset in ("quick-grasp", "quick-depth"):
        config = parse([preset])
        splits = open_splits(config.data)
        assert task_of(config, splits).structures(config.data, splits) is None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([], None),
        (["--student.detail"], True),
        (["--student.no-detail"], False),
        (["--student.detail", "--seed", "1"], True),
        (["--student.no-detail", "--teacher.detail"], False),
        (["--student.detail", "False"], False),
        (["--student.detail=True"], True),
    ],
)
def test_the_switch_on_the_command_line(fields, expected):
    assert parse(["camvid-cpu", *fields]).student.detail is expected
