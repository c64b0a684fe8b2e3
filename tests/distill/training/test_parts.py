"""The parts of a step: weighted by their valid and labeled pixels, they add up to the step of the whole batch."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from distill.data.sample import Batch
from distill.training.loop import train
from distill.training.parts import counted
from tests.distill.tiny import distillation, tiny_net
from tests.distill.training.small_training import SGD


def batch_of(valid: int, labeled: int) -> Batch:
    """Two images of 4 × 4 pixels of which so many are valid and labeled."""
    order = torch.arange(32).view(2, 4, 4)
    return Batch(
        torch.zeros(2, 1, 4, 4),
        torch.zeros(2, 4, 4).long(),
        order < valid,
        ("a", "b"),
        unlabeled=(order < valid) & (order >= labeled),
    )


def test_shares_are_fractions_of_valid_and_labeled_pixels(accelerator):
    parts = counted([batch_of(32, 8), batch_of(16, 4), batch_of(16, 0)], accelerator)
    assert [part.share for part in parts] == [0.5, 0.25, 0.25]
    assert [part.share * part.task_weight for part in parts] == pytest.approx([8 / 12, 4 / 12, 0])
    assert [part.complete for part in parts] == [True, False, False]


def test_where_all_valid_pixels_are_labeled_the_task_weight_is_exactly_1(accelerator):
    counts = (31, 7, 3, 11, 29)
    parts = counted([replace(batch_of(n, n), unlabeled=None) for n in counts], accelerator)
    assert [part.task_weight for part in parts] == [1.0] * 5
    assert [part.share for part in parts] == [n / 81 for n in counts]


def test_parts_without_a_valid_pixel_are_left_out(accelerator):
    assert counted([batch_of(0, 0)], accelerator) == []
    assert len(counted([batch_of(0, 0), batch_of(5, 5)], accelerator)) == 1


def test_without_any_label_only_the_task_weighs_nothing(accelerator):
    (part,) = counted([batch_of(32, 0)], accelerator)
    assert (part.share, part.task_weight) == (1.0, 0.0)


@pytest.mark.parametrize("options", [{}, {"min_confidence": 0.55}])
def test_micro_batches_of_mixed_images_train_like_the_whole_batch(mixed_stage, accelerator, options):
    def weights(accumulate):
        network, teacher = tiny_net(), tiny_net(seed=9)
        network.backbone[1], network.dropout.p = nn.Identity(), 0.0  # what else depends on the division
        lesson = distillation(teacher, network, accelerator, "kl(t=2) + at(layer4)", **options)
        stage = replace(mixed_stage, folder=mixed_stage.folder / str(accumulate))
        train(network, stage, replace(SGD, accumulate=accumulate), accelerator, distillation=lesson)
        return torch.cat([parameter.flatten() for parameter in network.parameters()]).detach()

    torch.testing.assert_close(weights(4), weights(1))
