"""Distillation that fades: for images with labels alone."""

import pytest
import torch

from distill.data.sample import stack, without_labels
from distill.training.step_module import TrainStepModule
from tests.distill.tiny import CE, distillation, tiny_net


@pytest.mark.parametrize(("labeled", "faded"), [((0, 1), True), ((), False), ((0,), False)])
def test_images_without_labels_teach_to_the_last_step(stage, accelerator, labeled, faded):
    samples = [stage.view[(0, index)] for index in range(2)]
    batch = stack([s if index in labeled else without_labels(s) for index, s in enumerate(samples)])
    student, teacher = tiny_net(), tiny_net(seed=1)
    lesson = distillation(teacher, student, accelerator, weight=3.0, schedule="cosine")
    image = batch.image / 20
    target = lesson.teacher(batch, image)
    module = TrainStepModule(student.eval(), lesson.distillation_loss, CE)
    terms = [module(image, batch, target, lesson.weights_at(step, 100)) for step in (0, 100)]
    first, last = ([one["loss"] - one["task"], one["kd"]] for one in terms)
    assert first[1] == last[1] > 0
    torch.testing.assert_close(first[0], 3 * first[1])
    of_unlabeled = lesson.distillation_loss.parts(student(image), target, batch)[1]
    torch.testing.assert_close(last[0], 3 * of_unlabeled)
    assert (of_unlabeled == 0) == faded
