"""The sum of distillation losses in images without labels."""

from dataclasses import replace

import pytest
import torch

from distill.data.sample import Batch
from distill.losses.distillation.common import Pixels
from distill.losses.distillation.logits import kl
from distill.losses.distillation_loss import (
    DistillationLoss,
    TeacherOutput,
    parse_distillation,
)
from distill.losses.pseudo_labels import PseudoLabels
from tests.distill.losses.made import SHAPES, distillation_loss


def partly_labeled(batch: Batch) -> Batch:
    """The batch without the labels of its first image."""
    unlabeled = batch.valid.clone()
    unlabeled[1:] = False
    return replace(batch, label=torch.where(unlabeled, 255, batch.label), unlabeled=unlabeled)


def test_an_image_without_labels_counts_as_one_with_them(batch, maps):
    loss = distillation_loss("kl(t=2) + at(layer4)")
    torch.testing.assert_close(loss(*maps, partly_labeled(batch)), loss(*maps, batch))


def own_for_unlabeled(loss="", aux=""):
    torch.manual_seed(0)  # of an adapter
    terms = parse_distillation("kl(t=2)", "3*kl(t=1)", loss, aux)
    return DistillationLoss(terms, SHAPES, SHAPES)


def test_images_without_labels_may_have_losses_of_their_own(batch, maps):
    batch = partly_labeled(batch)
    both = own_for_unlabeled("jaccard + at(layer4)", "mse").parts(*maps, batch=batch)
    labeled, _ = distillation_loss("kl(t=2)", "3*kl(t=1)").parts(*maps, batch=batch)
    _, unlabeled = distillation_loss("jaccard + at(layer4)", "mse").parts(*maps, batch=batch)
    assert labeled > 0
    assert unlabeled > 0
    torch.testing.assert_close(torch.stack(both), torch.stack([labeled, unlabeled]))


@pytest.mark.parametrize(
    ("given", "same"), [(("jaccard", ""), ("jaccard", "3*kl(t=1)")), (("", "mse"), ("kl(t=2)", "mse"))]
)
def test_what_is_not_given_for_them_is_as_in_images_with_labels(batch, maps, given, same):
    batch = partly_labeled(batch)
    _, found = own_for_unlabeled(*given).parts(*maps, batch=batch)
    _, expected = distillation_loss(*same).parts(*maps, batch=batch)
    torch.testing.assert_close(found, expected)


def test_features_are_adapted_for_images_without_labels_as_well(batch, maps):
    loss = own_for_unlabeled("kl(t=2) + feature(layer4)")
    assert loss.terms.features == ("layer4",)
    loss(*maps, partly_labeled(batch)).backward()
    assert all(weight.grad.any() for weight in loss.parameters())
    assert list(loss.adapters) == ["2"]


def test_where_all_images_have_labels_adapters_have_a_gradient_of_zero(batch, maps):
    """With none, other processes would wait for it."""
    loss = own_for_unlabeled("kl(t=2) + feature(layer4)")
    total = loss(*maps, batch)
    torch.testing.assert_close(total, distillation_loss("kl(t=2)", "3*kl(t=1)")(*maps, batch))
    total.backward()
    assert [float(weight.grad.abs().max()) for weight in loss.parameters()] == [0.0]


@pytest.mark.parametrize("text", ["boundary(t=2)", "ifvd(layer4)", "cirkd(layer4)"])
def test_losses_that_need_labels_take_the_teachers(batch, maps, text):
    seen = torch.nn.functional.interpolate(maps[1].logits, (8, 8), mode="bilinear").argmax(1)
    told = batch.label.clone()
    told[0] = seen[0]
    torch.manual_seed(0)
    loss = distillation_loss(text)
    torch.manual_seed(0)
    same = distillation_loss(text)
    same.load_state_dict(loss.state_dict())
    expected = loss(*maps, replace(batch, label=told))
    torch.testing.assert_close(same(*maps, partly_labeled(batch)), expected)


def test_void_of_the_teacher_does_not_count_without_labels_either(batch, maps):
    output, target = maps
    margin = torch.ones(3, 1, 8, 8)
    margin[0, :, :4] = -1  # there the teacher has something to say
    void = TeacherOutput(target.logits, target.features | {"void": margin})
    only = replace(partly_labeled(batch), valid=batch.valid & (margin[:, 0] < 0))
    expected = distillation_loss()(output, target, only) * only.valid.sum() / batch.valid.sum()
    assert expected > 0
    torch.testing.assert_close(distillation_loss()(output, void, partly_labeled(batch)), expected)
    void = TeacherOutput(target.logits, {"void": torch.ones(3, 1, 8, 8)})
    assert distillation_loss()(output, void, partly_labeled(batch)) == 0


def test_trust_in_labels_leaves_pixels_without_any_alone(batch, maps):
    loss, unlabeled = distillation_loss(trust="label"), partly_labeled(batch)
    only = replace(batch, valid=unlabeled.unlabeled, label=unlabeled.label, unlabeled=unlabeled.unlabeled)
    torch.testing.assert_close(loss(*maps, only), distillation_loss()(*maps, only))


def test_unsure_pixels_without_labels_do_not_count(batch, maps):
    output, target = maps
    p = target.logits.softmax(1)
    limit = float(p[0].max(0).values.median())
    pseudo = PseudoLabels(limit)
    loss = DistillationLoss(parse_distillation("kl(t=2)"), SHAPES, SHAPES, pseudo_labels=pseudo)
    weight = batch.valid.float()
    weight[0] = (p[0].max(0).values >= limit).float()
    assert 0.4 < weight[0].mean() < 0.6
    pixels = Pixels(weight, batch.label, 3)
    counts = weight.flatten(1).sum(1)
    expected = (kl(output.logits, target.logits, pixels, t=2.0) * counts).sum() / batch.valid.sum()
    torch.testing.assert_close(loss(output, target, partly_labeled(batch)), expected)


def test_pseudo_labels_are_no_part_of_a_saved_state():
    pseudo = PseudoLabels(0.5, torch.ones(3))
    loss = DistillationLoss(parse_distillation("kl(t=2)"), SHAPES, SHAPES, pseudo_labels=pseudo)
    assert loss.state_dict() == {}
