"""Rules that every distillation loss follows: right gradients, and a mean over the weighted cells of each image."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from distill.losses.distillation.common import Pixels
from distill.losses.registry import DISTILLATION_LOSSES
from tests.distill.losses.dense import CLASSES, VOID, backward, compute, make_pixels, normal, without_weight

every_loss = pytest.mark.parametrize("name", DISTILLATION_LOSSES)
OPTIONS = [
    *((name, {}) for name in DISTILLATION_LOSSES),
    ("dist", {"t": 2.0, "intra": 0.0}),
    ("dist", {"t": 2.0, "inter": 0.0}),
    ("boundary", {"radius": 1, "edge": 0.9}),
    ("at", {"p": 1.0}),
    ("at", {"p": 3.0}),
    ("skd", {"pool": 1}),
    ("skd", {"maximum": 1}),
    ("cirkd", {"t": 0.5, "batch": 0.0, "region": 0.0}),
    ("cirkd", {"t": 0.5, "batch": 0.0, "pixel": 0.0}),
    ("maps", {"beta": 0.0, "quality": 0.7}),
    ("grasp_kl", {"beta": 0.1, "geometry": 3.0}),
]
every_agreement = pytest.mark.parametrize(("name", "options"), [one for one in OPTIONS if one[0] != "hard"])
"""All but the one that knows the teacher's most likely class alone, and is not 0 where that is unsure."""
every_option = pytest.mark.parametrize(("name", "options"), OPTIONS)


class TestEveryLoss:
    @every_option
    def test_gradient(self, scene, name, options):
        student, teacher, pixels = scene
        assert torch.autograd.gradcheck(
            lambda s: compute(name, s, teacher, pixels, **options), (student.requires_grad_(),)
        )

    @every_loss
    def test_one_positive_value_an_image(self, scene, name):
        loss = compute(name, *scene)
        assert loss.shape == (2,)
        assert (loss > 1e-3).all()

    @every_agreement
    def test_zero_where_student_is_teacher(self, scene, name, options):
        student, _, pixels = scene
        loss, gradient = backward(name, student, student.clone(), pixels, **options)
        assert loss.abs().max() <= 1e-12
        assert gradient.abs().max() <= 1e-6

    @every_option
    def test_unchanged_when_tiled(self, scene, name, options):
        student, teacher, pixels = scene
        tiled = Pixels(pixels.weight.tile(1, 2, 3), pixels.label.tile(1, 2, 3), CLASSES)
        torch.testing.assert_close(
            compute(name, student.tile(1, 1, 2, 3), teacher.tile(1, 1, 2, 3), tiled, **options),
            compute(name, student, teacher, pixels, **options),
        )

    @every_loss
    def test_unchanged_when_all_weights_are_scaled(self, scene, name):
        student, teacher, pixels = scene
        halved = replace(pixels, weight=pixels.weight / 2)
        torch.testing.assert_close(
            compute(name, student, teacher, halved), compute(name, student, teacher, pixels)
        )

    @every_loss
    def test_a_weight_matters(self, scene, name):
        student, teacher, pixels = scene
        weight = pixels.weight.clone()
        weight[:, 8:, 12:] *= 10
        changed = compute(name, student, teacher, replace(pixels, weight=weight))
        assert not torch.isclose(changed, compute(name, student, teacher, pixels)).any()

    @every_option
    def test_void_has_no_influence(self, scene, name, options):
        student, teacher, pixels = scene
        expected, expected_gradient = backward(name, student, teacher, pixels, **options)
        student, teacher, label = student.clone(), teacher.clone(), pixels.label.clone()
        student.permute(1, 0, 2, 3)[(slice(None), *VOID)] = 1e4
        teacher.permute(1, 0, 2, 3)[(slice(None), *VOID)] = -1e4 * normal(CLASSES, 2, 2, 2)
        label[pixels.weight == 0] = 1
        loss, gradient = backward(name, student, teacher, replace(pixels, label=label), **options)
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(gradient, expected_gradient)
        assert not gradient.permute(1, 0, 2, 3)[(slice(None), *VOID)].any()

    @every_loss
    def test_all_void_is_zero_with_zero_gradient(self, scene, name):
        student, teacher, pixels = scene
        loss, gradient = backward(name, student, teacher, without_weight(pixels))
        assert not loss.any()
        assert not gradient.any()  # NaN would be true

    @every_loss
    def test_an_all_void_image_beside_a_good_one(self, scene, name):
        student, teacher, pixels = scene
        loss, gradient = backward(name, student, teacher, without_weight(pixels, 1))
        assert loss[1] == 0
        assert not gradient[1].any()
        alone, alone_gradient = backward(name, *first_image(scene))
        torch.testing.assert_close(loss[:1], alone)
        torch.testing.assert_close(gradient[:1], alone_gradient)

    @every_loss
    def test_one_image_has_a_gradient(self, scene, name):
        _, gradient = backward(name, *first_image(scene))
        assert gradient.abs().sum() > 1e-3

    @pytest.mark.parametrize("name", [name for name in DISTILLATION_LOSSES if name != "cirkd"])
    def test_images_do_not_depend_on_each_other(self, scene, name):
        torch.testing.assert_close(compute(name, *scene)[:1], compute(name, *first_image(scene)))

    @every_loss
    def test_other_stride(self, scene, name):
        student, _, pixels = scene
        teacher = F.interpolate(student, (8, 12), mode="bilinear", align_corners=False)
        loss, gradient = backward(name, student, teacher, pixels)
        assert name == "hard" or loss.abs().max() <= 1e-12
        assert gradient.shape == student.shape
        other = compute(name, student, normal(2, CLASSES, 8, 12, seed=3), pixels)
        assert (other > 1e-3).all()

    @every_loss
    def test_cells_that_do_not_divide_the_image(self, name):
        loss = compute(name, normal(2, CLASSES, 5, 7), normal(2, CLASSES, 5, 7, seed=2), make_pixels())
        assert (loss > 1e-3).all()

    @every_loss
    def test_teacher_gets_no_gradient(self, scene, name):
        student, teacher, pixels = scene
        teacher.requires_grad_()
        compute(name, student.requires_grad_(), teacher, pixels).sum().backward()
        assert teacher.grad is None

    @every_option
    @pytest.mark.parametrize("value", [0.0, 1.0])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_constant_maps_have_finite_gradients(self, scene, name, options, value, dtype):
        _, teacher, pixels = scene
        flat = torch.full_like(teacher, value, dtype=dtype)
        for target in (teacher.to(dtype), torch.zeros_like(flat), torch.ones_like(flat)):
            loss, gradient = backward(name, flat, target, pixels, **options)
            assert torch.isfinite(loss).all()
            assert torch.isfinite(gradient).all()

    @every_loss
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_is_computed_in_float32(self, scene, name, dtype):
        student, teacher, pixels = scene
        student, teacher = student.to(dtype), teacher.to(dtype)
        pixels = replace(pixels, weight=pixels.weight.float())
        loss, gradient = backward(name, student, teacher, pixels)
        assert loss.dtype == torch.float32
        assert gradient.dtype == dtype
        assert torch.isfinite(gradient).all()
        torch.testing.assert_close(
            loss, compute(name, student.double(), teacher.double(), pixels).float(), rtol=1e-4, atol=1e-6
        )


def first_image(scene):
    student, teacher, pixels = scene
    return student[:1], teacher[:1], Pixels(pixels.weight[:1], pixels.label[:1], CLASSES)
