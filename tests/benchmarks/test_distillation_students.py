"""What the students of benchmarks/distillation.py are taught by."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.distillation_students import StudentFactory, _on_plain_colors
from benchmarks.plain_training import fixed_teacher
from deploy.files.images import write_png
from distill.data.sample import stack
from distill.pipeline.prepare import prepare
from distill.pipeline.stages import Trained
from distill.run import parse
from distill.training.step_module import normalized
from tests.distill.tiny import RUN


@pytest.fixture
def students(tmp_path):
    rng = np.random.default_rng(0)
    for index in range(10):
        write_png(tmp_path / "images" / f"{index}.png", rng.integers(0, 256, (64, 80, 3), np.uint8))
        write_png(tmp_path / "masks" / f"{index}.png", rng.integers(0, 3, (64, 80), np.uint8))
    fields = [
        "--int8.no-enabled",
        "--teacher.no-pretrained",
        "--student.no-pretrained",
        "--data.size",
        "64",
        "80",
        "--augment.crop",
        "48",
        "48",
    ]
    config = parse(["folder-gpu", *RUN[1:], f"--data.root={tmp_path}", *fields, f"--out={tmp_path / 'run'}"])
    context = prepare(config)
    return StudentFactory(context, Trained("teacher", "", fixed_teacher(context), 0.0), tmp_path)


def test_a_teacher_sees_plain_colors_of_the_same_crops(students):
    seen = []
    stage = students.prepare(students.context.config, "one", 0).stage
    teach = _on_plain_colors(lambda *given: seen.append(given), stage, students.context)
    keys = tuple((epoch, epoch % 4) for epoch in range(8))
    batch = replace(stack([stage.view[key] for key in keys]), keys=keys)
    teach(batch, torch.empty(0))
    [(plain, image)] = seen
    assert torch.equal(plain.label, batch.label)  # zoomed, cut and flipped alike
    assert torch.equal(image, normalized(plain, stage, channels_last=True))
    still = replace(students.context.config.augment, photometric=0.0)
    resized = students.context.task.view(
        replace(students.context.config, augment=replace(still, flip=False)),
        students.context.splits,
        students.context.stats,
    )
    for key, crop, jittered in zip(keys, plain.image, batch.image, strict=True):
        assert not torch.allclose(crop, jittered, atol=1)
        unflipped = resized[key].image
        assert any(torch.allclose(crop, one, atol=1e-3) for one in (unflipped, unflipped.flip(2)))


def test_a_student_is_prepared_with_such_a_teacher(students):
    run = students.context.config
    for plain, photometric, wrapped in ((True, 0.3, True), (False, 0.3, False), (True, 0.0, False)):
        config = replace(run, augment=replace(run.augment, photometric=photometric))
        teacher = students.prepare(config, "one", 0, plain).distillation.teacher
        assert teacher.__qualname__.startswith("_on_plain_colors") == wrapped
