"""Distillation by a teacher that lacks classes of the data, or sees none of them at some pixels."""

import pytest
import torch

from distill.data.sample import Batch
from distill.losses.distillation_loss import (
    VOID,
    DistillationLoss,
    Shapes,
    TeacherOutput,
    parse_distillation,
)
from teacher.pspnet import Output


def numbers(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def made(text, known=None, classes=4):
    shapes = Shapes(classes, {})
    return DistillationLoss(parse_distillation(text), shapes, shapes, known=known).double()


@pytest.fixture
def batch():
    label = torch.randint(0, 4, (2, 8, 8), generator=torch.Generator().manual_seed(1))
    return Batch(numbers(2, 3, 8, 8), label, torch.ones(2, 8, 8, dtype=torch.bool), ("a", "b"))


def test_pixels_where_void_wins_do_not_count(batch):
    student, logits = numbers(2, 4, 8, 8, seed=2).requires_grad_(), numbers(2, 4, 8, 8, seed=3)
    void = torch.full((2, 1, 8, 8), -1.0, dtype=torch.float64)
    void[:, :, :3] = 2.0
    loss = made("kl(t=2)")(Output(student, None), TeacherOutput(logits, {VOID: void}), batch)
    loss.backward()
    assert not student.grad[:, :, :3].any()
    assert student.grad[:, :, 3:].any()
    masked = Batch(batch.image, batch.label, batch.valid & (void[:, 0] <= 0), batch.ids)
    expected = made("kl(t=2)")(Output(student, None), TeacherOutput(logits), masked)
    torch.testing.assert_close(
        loss, expected * masked.valid.sum() / batch.valid.sum()
    )  # a mean over valid pixels


def test_without_a_pixel_of_its_classes_the_loss_is_zero(batch):
    student = numbers(2, 4, 8, 8, seed=2).requires_grad_()
    void = torch.ones(2, 1, 8, 8, dtype=torch.float64)
    loss = made("kl(t=2)")(Output(student, None), TeacherOutput(numbers(2, 4, 8, 8), {VOID: void}), batch)
    loss.backward()
    assert loss == 0
    assert not student.grad.any()


@pytest.mark.parametrize("name", ["kl(t=2)", "mse", "cwd(t=4)"])
def test_classes_that_the_teacher_lacks_are_left_alone(batch, name):
    """The loss is that of a data set without the class, where pixels labeled so are void."""
    student, logits = numbers(2, 4, 4, 4, seed=2).requires_grad_(), numbers(2, 4, 8, 8, seed=3)
    loss = made(name, (0, 1, 3))(Output(student, None), TeacherOutput(logits), batch)
    loss.backward()
    assert not student.grad[:, 2].any()
    others = [0, 1, 3]
    label = torch.tensor([0, 1, 255, 2])[batch.label]
    reduced = Batch(batch.image, label, label < 255, batch.ids)
    expected = made(name, classes=3)(
        Output(student[:, others], None), TeacherOutput(logits[:, others]), reduced
    )
    torch.testing.assert_close(loss, expected * reduced.valid.sum() / batch.valid.sum())


def test_a_teacher_of_all_classes_is_compared_as_before(batch):
    output, target = Output(numbers(2, 4, 4, 4), None), TeacherOutput(numbers(2, 4, 8, 8, seed=3))
    for name in ("kl(t=2)", "mse"):
        assert made(name, (0, 1, 2, 3))(output, target, batch) == made(name)(output, target, batch)
