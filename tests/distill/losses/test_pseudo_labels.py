"""Pixels without labels: what the teacher sees there, and how much they count."""

import pytest
import torch

from distill.losses.pseudo_labels import PseudoLabels, pseudo_label_weights

SIZE = torch.zeros(2, 8, 8, dtype=torch.int64)
LOGITS = 3 * torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_labels_are_the_most_likely_classes_and_all_count():
    seen, weight = PseudoLabels()(LOGITS, SIZE)
    assert torch.equal(seen, LOGITS.argmax(1))
    assert torch.equal(weight, torch.ones(2, 8, 8))


def test_coarse_logits_are_enlarged_before_they_are_compared():
    coarse = LOGITS[:, :, :4, :4]
    enlarged = torch.nn.functional.interpolate(coarse, (8, 8), mode="bilinear")
    seen, weight = PseudoLabels(0.7)(coarse, SIZE)
    assert torch.equal(seen, enlarged.argmax(1))
    assert torch.equal(weight > 0, enlarged.softmax(1).amax(1) >= 0.7)


def test_weights_follow_the_class_that_is_seen():
    factors = torch.tensor([0.5, 1.0, 4.0])
    seen, weight = PseudoLabels(0.0, factors)(LOGITS, SIZE)
    assert torch.equal(weight, factors[seen])


@pytest.mark.parametrize("kind", ["log", "inverse", "effective"])
def test_rare_classes_weigh_more_and_the_mean_pixel_1(kind):
    pixels = (900, 90, 10)
    weights = pseudo_label_weights(kind, pixels)
    assert weights[0] < weights[1] < weights[2]
    assert (weights * torch.tensor(pixels)).sum() / 1000 == pytest.approx(1)


def test_inverse_weights_balance_the_classes():
    weights = pseudo_label_weights("inverse", (900, 90, 10)) * torch.tensor([900, 90, 10])
    torch.testing.assert_close(weights, weights[0].expand(3))


def test_none_weighs_all_alike():
    assert pseudo_label_weights("none", (9, 1)) is None
