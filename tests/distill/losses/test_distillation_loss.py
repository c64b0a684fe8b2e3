"""The sum of distillation losses: how it weights pixels and images, what it refuses, and several teachers."""

import math

import pytest
import torch
from accelerate import Accelerator

from deploy.errors import UserError
from distill.data.sample import Batch
from distill.distillation.teachers import combined, online_teacher
from distill.losses.distillation.common import Pixels
from distill.losses.distillation.logits import kl
from distill.losses.distillation_loss import (
    Shapes,
    TeacherOutput,
    label_probability,
)
from teacher.pspnet import Output
from tests.distill.losses.made import distillation_loss, numbers
from tests.distill.tiny import tiny_net


def test_images_count_by_their_valid_pixels(batch, maps):
    """So a batch may be split over processes: the mean over its parts, by valid pixels, is that of the whole."""
    loss = distillation_loss("2*kl(t=2) + at(layer4)")
    parts, counts = [], []
    for index in range(3):
        image = slice(index, index + 1)
        output = Output(maps[0].logits[image], None, {"layer4": maps[0].features["layer4"][image]})
        target = TeacherOutput(maps[1].logits[image], {"layer4": maps[1].features["layer4"][image]})
        part = Batch(batch.image[image], batch.label[image], batch.valid[image], batch.ids[image])
        parts.append(loss(output, target, part))
        counts.append(int(part.valid.sum()))
    assert counts == [64, 16, 0]
    expected = sum(part * count for part, count in zip(parts, counts, strict=True)) / sum(counts)
    torch.testing.assert_close(loss(maps[0]._replace(aux=None), maps[1], batch), expected)


def test_without_a_valid_pixel_the_loss_is_zero(batch, maps):
    void = Batch(batch.image, batch.label, torch.zeros_like(batch.valid), batch.ids)
    student = maps[0].logits.requires_grad_()
    loss = distillation_loss()(maps[0], maps[1], void)
    loss.backward()
    assert loss == 0
    assert not student.grad.any()


def test_the_auxiliary_head_learns_from_the_logits(batch, maps):
    with_aux = distillation_loss("kl(t=2)", aux="0.5*kl(t=1)")(*maps, batch)
    alone = distillation_loss("kl(t=2)")(*maps, batch)
    aux = distillation_loss("kl(t=1)")(Output(maps[0].aux, None), maps[1], batch)
    torch.testing.assert_close(with_aux, alone + 0.5 * aux)


def test_trust_weights_a_pixel_by_the_probability_of_its_label(batch, maps):
    output, target = maps
    right = label_probability(target.logits, batch.label, batch.valid)
    p = target.logits.softmax(1)
    for n, y, x in ((0, 3, 4), (1, 0, 7)):
        torch.testing.assert_close(right[n, y, x], p[n, batch.label[n, y, x], y, x])
    assert torch.equal(right[2], torch.ones(8, 8))
    pixels = Pixels(batch.valid * right, batch.label, 3)
    mass = pixels.weight.flatten(1).sum(1)
    expected = (kl(output.logits, target.logits, pixels, t=2.0) * mass).sum() / batch.valid.sum()
    torch.testing.assert_close(distillation_loss(trust="label")(output, target, batch), expected)
    assert expected < distillation_loss()(output, target, batch)


def test_a_teacher_that_is_wrong_everywhere_teaches_nothing(batch, maps):
    wrong = torch.nn.functional.one_hot((batch.label.clamp(max=2) + 1) % 3, 3).permute(0, 3, 1, 2) * 100.0
    loss = distillation_loss(trust="label")(maps[0], TeacherOutput(wrong), batch)
    assert loss.item() == pytest.approx(0, abs=1e-6)


def test_adapters_bridge_other_channels(batch, maps):
    output, target = maps
    wide = TeacherOutput(target.logits, {"layer4": numbers(3, 9, 8, 8)})
    loss = distillation_loss("feature(layer4)", teacher=Shapes(3, {"layer4": 9}))
    loss(output, wide, batch).backward()
    assert [tuple(p.shape) for p in loss.parameters()] == [(9, 6, 1, 1)]
    assert all(p.grad.abs().sum() > 0 for p in loss.parameters())


def test_an_adapter_of_two_layers_has_a_norm_between(batch, maps):
    output, target = maps
    wide = TeacherOutput(target.logits, {"layer4": numbers(3, 9, 8, 8)})
    loss = distillation_loss("cirkd(layer4, layers=2)", teacher=Shapes(3, {"layer4": 9}))
    loss(output, wide, batch).backward()
    assert [tuple(p.shape) for p in loss.parameters()] == [(9, 6, 1, 1), (9,), (9,), (9, 9, 1, 1)]
    assert all(p.grad.abs().sum() > 0 for p in loss.parameters())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loss": "cirkd(layer4, layers=3)"}, "layers=3: an adapter has 1 or 2"),
        ({"teacher": Shapes(19, {})}, "teacher has 19 classes, the student 3"),
        ({"loss": "feature(layer5)"}, "student has no feature 'layer5'; it has layer3, layer4"),
        (
            {"loss": "at(head)", "student": Shapes(3, {"head": 2})},
            "teacher has no feature 'head'; it has layer3, layer4",
        ),
        ({"aux": "at(layer3)"}, r"at\(layer3\) compares features; give losses on logits"),
    ],
)
def test_a_mismatch_is_a_one_line_error(options, words):
    with pytest.raises(UserError, match=words):
        distillation_loss(**options)


class TestSeveralTeachers:
    def test_the_mean_is_that_of_probabilities(self, batch):
        maps = [numbers(3, 3, 8, 8, seed=seed) for seed in (1, 2)]
        mean = combined(maps, batch, "mean").softmax(1)
        torch.testing.assert_close(mean, (maps[0].softmax(1) + maps[1].softmax(1)) / 2)

    def test_one_teacher_is_left_as_it_is(self, batch):
        maps = numbers(3, 3, 4, 4)
        assert combined([maps], batch, "label") is maps

    def test_the_teacher_that_knows_an_image_counts_more_there(self, batch):
        right = torch.nn.functional.one_hot(batch.label.clamp(max=2), 3).permute(0, 3, 1, 2) * 9.0
        ignorant = torch.zeros_like(right)
        first = torch.stack([right[0], ignorant[1], ignorant[2]])
        second = torch.stack([ignorant[0], right[1], ignorant[2]])
        together = combined([first, second], batch, "label").softmax(1)
        plain = combined([first, second], batch, "mean").softmax(1)
        for image in (0, 1):
            where = batch.valid[image]
            labels = batch.label[image][where]
            sure, mean = (p[image][:, where].gather(0, labels[None]).mean() for p in (together, plain))
            # softmax over (log p ≈ 0, log 1/3): weights 3/4 and 1/4
            assert sure.item() == pytest.approx(0.75 + 0.25 / 3, abs=1e-2)
            assert mean.item() == pytest.approx(0.5 + 0.5 / 3, abs=1e-2)

    def test_the_weights_of_three_teachers_are_the_papers(self, batch):
        label = batch.label.clamp(max=2)
        one_hot = torch.nn.functional.one_hot(label, 3).permute(0, 3, 1, 2).double()
        maps = [strength * one_hot for strength in (5.0, 1.0, 0.0)]
        # the same loss at every pixel: −log of the label's probability (Zhang et al., equation 4)
        losses = torch.tensor([-math.log(math.exp(s) / (math.exp(s) + 2)) for s in (5.0, 1.0, 0.0)])
        weights = (1 - losses.exp() / losses.exp().sum()) / 2
        expected = sum(w * m.softmax(1) for w, m in zip(weights, maps, strict=True))
        together = combined(maps, batch, "label").softmax(1)
        some = batch.valid.flatten(1).any(1)
        torch.testing.assert_close(together[some], expected[some], rtol=1e-5, atol=1e-7)

    def test_other_strides_are_resized_and_other_classes_refused(self, batch):
        assert combined([numbers(3, 3, 8, 8), numbers(3, 3, 4, 4)], batch, "mean").shape == (3, 3, 8, 8)
        with pytest.raises(UserError, match="the teachers have 3, 4 classes"):
            combined([numbers(3, 3, 8, 8), numbers(3, 4, 8, 8)], batch, "mean")

    def test_two_networks_teach_online(self, batch):
        accelerator = Accelerator(cpu=True)
        networks = [tiny_net(seed=1), tiny_net(seed=2)]
        target = online_teacher(networks, accelerator, features=("layer4",))(batch, batch.image)
        expected = sum(network.eval()(batch.image).logits.softmax(1) for network in networks) / 2
        torch.testing.assert_close(target.logits.softmax(1), expected)
        assert torch.equal(target.features["layer4"], networks[0](batch.image).features["layer4"])
        assert not any(p.requires_grad for network in networks for p in network.parameters())


@pytest.mark.parametrize("text", ["kl(t=2)", "skd(layer4)", "ifvd(layer4)", "cirkd(layer4)", "cwd(layer4)"])
def test_mixed_types_change_nothing(batch, maps, text):
    """Matrix products in bf16 lose what a student that is near its teacher differs by."""
    features = maps[1].features["layer4"] + 0.01 * numbers(3, 6, 8, 8, seed=6)
    near = Output(maps[1].logits + 0.01 * numbers(3, 3, 8, 8, seed=7), None, {"layer4": features})
    found = []
    for mixed in (False, True):
        torch.manual_seed(0)
        loss = distillation_loss(text)
        loss.adapters = torch.nn.ModuleDict()  # they may be computed in any type
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            found.append(loss(near, maps[1], batch))
    assert found[0] > 0
    assert torch.equal(*found)
