"""Benchmarks that distill: from the teacher that is given, and on images without labels."""

import json
from dataclasses import replace

import pytest

from benchmarks import design, distillation, distillation_costs, unlabeled
from benchmarks.design_layouts import LAYOUTS
from benchmarks.distillation_students import StudentFactory
from benchmarks.plain_training import fixed_teacher
from benchmarks.stepping import Stepper
from distill.distillation.ready_teacher import ReadyTeacher
from distill.pipeline.prepare import prepare
from distill.pipeline.stages import Trained
from distill.run import parse
from tests.deploy.tiny import make_bundle
from tests.distill.tiny import RUN

FEW = [*RUN, "--data.synthetic-counts", "8", "2", "2", "--int8.no-enabled"]


class Asked(Exception):
    """Raised in place of what a benchmark does with its teacher."""


@pytest.mark.parametrize(
    ("script", "user", "arguments"),
    [
        (distillation, "benchmarks.distillation_bench.Bench", ["--methods", "kl"]),
        (unlabeled, "distill.pipeline.pipeline.test_scores", ["--labels", "4"]),
        (design, "benchmarks.design_training.Trainer", []),
    ],
)
def test_a_ready_made_teacher_teaches(tmp_path, monkeypatch, script, user, arguments):
    make_bundle(tmp_path / "bundle", "sar")
    (tmp_path / "latency-320-11-20.json").write_text(json.dumps({layout.name: {} for layout in LAYOUTS}))
    folder = "--out" if script is design else "--folder"
    given = []

    def ask(context, teacher, *_):
        given.append(teacher.network if isinstance(teacher, Trained) else teacher)
        raise Asked

    monkeypatch.setattr(user, ask)
    with pytest.raises(Asked):
        script.main([*FEW, f"--teacher.bundle={tmp_path / 'bundle'}", *arguments, folder, str(tmp_path)])
    assert isinstance(given[0], ReadyTeacher)


def test_a_ready_made_teacher_is_timed(tmp_path):
    make_bundle(tmp_path / "bundle", "sar")
    context = prepare(parse([*FEW, f"--teacher.bundle={tmp_path / 'bundle'}", f"--out={tmp_path / 'run'}"]))
    assert isinstance(fixed_teacher(context), ReadyTeacher)


def test_images_without_labels_are_learned_from(tmp_path, monkeypatch):
    context = prepare(parse([*FEW, "--data.labels=3", "--distill.views=1", f"--out={tmp_path}"]))
    students = StudentFactory(context, Trained("teacher", "", fixed_teacher(context), 0.0), tmp_path)
    run = context.config
    alone = replace(run, distill=replace(run.distill, weight=0.0))
    taught = students.prepare(run, "taught", 0)
    assert (len(taught.stage.view), taught.stage.order.unlabeled) == (8, 5)
    assert len(students.prepare(alone, "alone", 0).stage.view) == 3
    training = run.student_train
    stepper = Stepper(taught.network, taught.stage, training, context.accelerator, taught.distillation)
    assert stepper.batch.unlabeled is not None
    assert stepper.batch.unlabeled.flatten(1).any(1).tolist() == [False, True]

    class Clock:
        step = staticmethod(lambda: 1.0)

    monkeypatch.setattr(distillation_costs, "Stepper", lambda *_: Clock)
    monkeypatch.setattr(distillation_costs, "_view_clock", lambda *_: lambda: 2.0)
    costs = distillation_costs.measure_costs(students, {"alone": alone, "taught": run}, None)
    assert {name: cost.share for name, cost in costs.items()} == {"alone": 0.0, "taught": 2.0 * 8}
