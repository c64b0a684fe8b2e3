"""The plan of a run's trainings, from injected speeds."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from distill.config import AugmentConfig, DataConfig, DistillConfig, ModelConfig, RunConfig, TrainConfig
from distill.overrides import with_changes
from distill.pipeline.estimate import Speed, measure_speeds, plan, shortened, validations
from distill.pipeline.prepare import prepare
from distill.run import parse
from tests.distill.tiny import RUN

SPEEDS = {"teacher": Speed(0.0, 3.0, 1.0), "student": Speed(0.0, 1.0, 0.25)}
CONFIG = RunConfig(
    data=DataConfig("synthetic", size=(64, 64)),
    teacher=ModelConfig("pspnet/resnet50"),
    student=ModelConfig("edge-small"),
    teacher_train=TrainConfig(steps=100, batch_size=8, warmup=10, eval_every=50),
    student_train=TrainConfig(steps=200, batch_size=8, warmup=20),
    augment=AugmentConfig(crop=(64, 64)),
    distill=DistillConfig(),
)


def context_of(config: RunConfig, processes: int = 1, unlabeled: range | None = None) -> Any:
    splits = SimpleNamespace(train=range(50), val=range(10), unlabeled=unlabeled)
    return SimpleNamespace(config=config, splits=splits, accelerator=SimpleNamespace(num_processes=processes))


def seconds(config: RunConfig, processes: int = 1) -> dict[str, tuple[float, float]]:
    made = plan(context_of(config, processes), SPEEDS)
    return {one.name: (one.step_seconds, one.validation_seconds) for one in made}


def after(config: RunConfig, changes: dict[str, object]) -> float:
    return sum(one.seconds for one in plan(context_of(with_changes(config, changes)), SPEEDS))


def test_steps_and_validations_of_each_training():
    assert seconds(CONFIG) == {
        "teacher": (100 * 8 * 3, 2 * 10 * 1.0),
        "baseline": (200 * 8 * 1, 10 * 0.25),
        "student": (200 * 8 * (1 + 1), 10 * 0.25),  # the teacher runs in every step
    }


def test_cached_outputs_cost_the_teacher_once_per_view():
    cached = replace(CONFIG, distill=DistillConfig(views=3))
    student = plan(context_of(cached), SPEEDS)[-1]
    assert (student.step_seconds, student.once_seconds) == (200 * 8 * 1, 3 * 50 * 1)
    assert student.seconds == 1600 + 150 + 2.5
    student = plan(context_of(cached, unlabeled=range(20)), SPEEDS)[-1]
    assert student.once_seconds == 3 * 70 * 1


def test_steps_give_way_to_the_outputs_of_fixed_views():
    cached = replace(CONFIG, distill=DistillConfig(views=30), max_minutes=60)
    changes = shortened(cached, plan(context_of(cached), SPEEDS))
    assert after(cached, changes) == pytest.approx(3600, rel=0.05)


def test_without_teacher_there_is_one_training():
    assert seconds(replace(CONFIG, no_teacher=True)) == {"student": (1600, 2.5)}


def test_validation_is_on_whole_images():
    crops = replace(CONFIG, augment=AugmentConfig(crop=(32, 32)))
    assert seconds(crops)["baseline"][1] == 4 * 10 * 0.25


def test_processes_share_the_images():
    halved = {name: (steps / 2, val / 2) for name, (steps, val) in seconds(CONFIG).items()}
    assert seconds(CONFIG, processes=2) == halved


@pytest.mark.parametrize(("steps", "every", "times"), [(100, 0, 1), (100, 50, 2), (100, 30, 4), (0, 0, 0)])
def test_validations(steps, every, times):
    assert validations(TrainConfig(steps=steps, eval_every=every)) == times


def test_steps_are_kept_where_they_fit():
    for minutes in (0, 1000):
        config = replace(CONFIG, max_minutes=minutes)
        assert shortened(config, plan(context_of(config), SPEEDS)) == {}


def test_steps_are_reduced_to_fit():
    config = replace(CONFIG, max_minutes=60)
    whole = plan(context_of(config), SPEEDS)
    assert sum(one.seconds for one in whole) > 3600
    changes = shortened(config, whole)
    share = (3600 - 25) / (2400 + 1600 + 3200)
    assert changes["teacher_train.steps"] == int(100 * share)
    assert changes["student_train.steps"] == int(200 * share)
    assert changes["student_train.warmup"] == int(20 * share)
    assert changes["teacher_train.eval_every"] == int(50 * share)
    assert changes["student_train.eval_every"] == 0, "as configured: only at the end"
    teacher = replace(config.teacher_train, steps=49, warmup=4, eval_every=24)
    student = replace(config.student_train, steps=99, warmup=9)
    after = plan(context_of(replace(config, teacher_train=teacher, student_train=student)), SPEEDS)
    assert 3300 < sum(one.seconds for one in after) <= 3600


def test_validations_give_way_to_steps():
    often = replace(CONFIG, teacher_train=replace(CONFIG.teacher_train, eval_every=1), max_minutes=5)
    assert shortened(often, plan(context_of(often), SPEEDS))["teacher_train.eval_every"] == 0


def test_a_warm_up_is_never_made_longer():
    often = replace(CONFIG.student_train, steps=50, eval_every=1)
    alone = replace(CONFIG, student_train=often, no_teacher=True, max_minutes=10)
    slow = {"student": Speed(0.0, 1.0, 10.0)}  # validations take more than the time, steps less
    changes = shortened(alone, plan(context_of(alone), slow))
    assert (changes["student_train.steps"], changes["student_train.warmup"]) == (50, 20)


def test_a_plateau_keeps_validations_on_the_way():
    teacher = replace(CONFIG.teacher_train, schedule="plateau", eval_every=1)
    config = replace(CONFIG, teacher_train=teacher, max_minutes=10)
    changes = shortened(config, plan(context_of(config), SPEEDS))
    new = with_changes(config, changes)
    assert 1 < validations(new.teacher_train) < validations(teacher)
    assert after(config, changes) <= 600


def test_one_step_is_always_left():
    config = replace(CONFIG, max_minutes=0.01)
    changes = shortened(config, plan(context_of(config), SPEEDS))
    assert changes["teacher_train.steps"] == changes["student_train.steps"] == 1


def test_networks_are_timed_without_touching_the_data_or_the_folder(tmp_path):
    context = prepare(parse([*RUN, f"--out={tmp_path / 'run'}"]))
    before = {path.name for path in (tmp_path / "run").rglob("*")}
    speeds = measure_speeds(context)
    assert set(speeds) == {"teacher", "student"}
    assert all(speed.step > 0 and speed.forward > 0 and speed.loading > 0 for speed in speeds.values())
    assert {path.name for path in (tmp_path / "run").rglob("*")} == before


def test_networks_are_timed_with_one_training_image(tmp_path):
    one = ("--data.synthetic-counts", "1", "1", "1", "--int8.no-enabled")
    context = prepare(parse([*RUN, *one, f"--out={tmp_path / 'run'}"]))
    assert measure_speeds(context)["teacher"].step > 0
