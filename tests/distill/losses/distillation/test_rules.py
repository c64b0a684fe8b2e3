"""What every distillation loss keeps: right gradients, and a mean over the weighted cells of each image."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from deploy.errors import UserError
from distill.losses.distillation.common import Pixels, cell_weight, class_weight, image_mean, weighted_kl
from distill.losses.distillation.logits import kl, near_boundary
from distill.losses.registry import DISTILLATION_LOSSES
from tests.distill.losses.dense import (
    CLASSES,
    VOID,
    compute,
    make_memory,
    make_pixels,
    make_scene,
    normal,
    without_weight,
)

every_method = pytest.mark.parametrize("name", DISTILLATION_LOSSES)
CHANNELS_CORRESPOND = ("kl", "cwd", "mse", "dist", "boundary", "feature", "cirkd")
"""Losses that compare map i of the student with map i of the teacher, whatever i."""
OPTIONS = [
    *((name, {}) for name in DISTILLATION_LOSSES),
    ("dist", {"t": 2.0, "intra": 0.0}),
    ("dist", {"t": 2.0, "inter": 0.0}),
    ("boundary", {"radius": 1, "edge": 0.9}),
    ("at", {"p": 1.0}),
    ("at", {"p": 3.0}),
    ("skd", {"pool": 1}),
    ("cirkd", {"t": 0.5, "batch": 0.0, "region": 0.0}),
    ("cirkd", {"t": 0.5, "batch": 0.0, "pixel": 0.0}),
    ("maps", {"beta": 0.0, "quality": 0.7}),
    ("grasp_kl", {"beta": 0.1, "geometry": 3.0}),
]
every_option = pytest.mark.parametrize(("name", "options"), OPTIONS)


@pytest.fixture
def scene():
    return make_scene()


def backward(name, student, teacher, pixels, **options):
    """Losses and the gradient of their sum."""
    student = student.detach().clone().requires_grad_()
    loss = compute(name, student, teacher, pixels, **options)
    loss.sum().backward()
    return loss.detach(), student.grad


class TestEveryMethod:
    @every_option
    def test_gradient(self, scene, name, options):
        student, teacher, pixels = scene
        assert torch.autograd.gradcheck(
            lambda s: compute(name, s, teacher, pixels, **options), (student.requires_grad_(),)
        )

    @every_method
    def test_one_positive_value_an_image(self, scene, name):
        loss = compute(name, *scene)
        assert loss.shape == (2,)
        assert (loss > 1e-3).all()

    @every_option
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

    @every_method
    def test_unchanged_when_all_weights_are_scaled(self, scene, name):
        student, teacher, pixels = scene
        halved = replace(pixels, weight=pixels.weight / 2)
        torch.testing.assert_close(
            compute(name, student, teacher, halved), compute(name, student, teacher, pixels)
        )

    @every_method
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
        student.permute(1, 0, 2, 3)[:, *VOID] = 1e4
        teacher.permute(1, 0, 2, 3)[:, *VOID] = -1e4 * normal(CLASSES, 2, 2, 2)
        label[pixels.weight == 0] = 1
        loss, gradient = backward(name, student, teacher, replace(pixels, label=label), **options)
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(gradient, expected_gradient)
        assert not gradient.permute(1, 0, 2, 3)[:, *VOID].any()

    @every_method
    def test_all_void_is_zero_with_zero_gradient(self, scene, name):
        student, teacher, pixels = scene
        loss, gradient = backward(name, student, teacher, without_weight(pixels))
        assert not loss.any()
        assert not gradient.any()  # NaN would be true

    @every_method
    def test_an_all_void_image_beside_a_good_one(self, scene, name):
        student, teacher, pixels = scene
        loss, gradient = backward(name, student, teacher, without_weight(pixels, 1))
        assert loss[1] == 0
        assert not gradient[1].any()
        alone, alone_gradient = backward(name, *first_image(scene))
        torch.testing.assert_close(loss[:1], alone)
        torch.testing.assert_close(gradient[:1], alone_gradient)

    @every_method
    def test_one_image_has_a_gradient(self, scene, name):
        _, gradient = backward(name, *first_image(scene))
        assert gradient.abs().sum() > 1e-3

    @pytest.mark.parametrize("name", [name for name in DISTILLATION_LOSSES if name != "cirkd"])
    def test_images_do_not_depend_on_each_other(self, scene, name):
        torch.testing.assert_close(compute(name, *scene)[:1], compute(name, *first_image(scene)))

    @every_method
    def test_other_stride(self, scene, name):
        student, _, pixels = scene
        teacher = F.interpolate(student, (8, 12), mode="bilinear", align_corners=False)
        loss, gradient = backward(name, student, teacher, pixels)
        assert loss.abs().max() <= 1e-12
        assert gradient.shape == student.shape
        other = compute(name, student, normal(2, CLASSES, 8, 12, seed=3), pixels)
        assert (other > 1e-3).all()

    @every_method
    def test_cells_that_do_not_divide_the_image(self, name):
        loss = compute(name, normal(2, CLASSES, 5, 7), normal(2, CLASSES, 5, 7, seed=2), make_pixels())
        assert (loss > 1e-3).all()

    @every_method
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

    @every_method
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


class TestAxes:
    ORDER = (2, 0, 3, 1)

    @pytest.mark.parametrize("name", CHANNELS_CORRESPOND)
    def test_maps_correspond(self, scene, name):
        student, teacher, pixels = scene
        memory = {"memory": make_memory(filled=False)} if DISTILLATION_LOSSES[name].memory else {}
        loss = compute(name, student, teacher, pixels, **memory)
        student = student[:, self.ORDER]
        torch.testing.assert_close(compute(name, student, teacher[:, self.ORDER], pixels, **memory), loss)
        if name != "cirkd":
            assert not torch.isclose(compute(name, student, teacher, pixels, **memory), loss).any()

    def test_remembered_channels_correspond(self, scene):
        student, teacher, pixels = scene
        loss = compute("cirkd", student, teacher, pixels, batch=0)
        assert not torch.isclose(
            compute("cirkd", student[:, self.ORDER], teacher, pixels, batch=0), loss
        ).any()

    @pytest.mark.parametrize("name", ["at", "skd", "ifvd"])
    def test_channels_need_not_correspond(self, scene, name):
        student, teacher, pixels = scene
        loss = compute(name, student, teacher, pixels)
        torch.testing.assert_close(compute(name, student[:, self.ORDER], teacher, pixels), loss)
        assert torch.isfinite(compute(name, normal(2, 7, 4, 6), teacher, pixels)).all()

    @pytest.mark.parametrize("name", ["at", "skd", "ifvd"])
    def test_other_channel_counts_add_nothing_where_they_repeat(self, scene, name):
        student, _, pixels = scene
        assert compute(name, student.tile(1, 3, 1, 1), student, pixels).max() <= 1e-9

    @pytest.mark.parametrize(
        "name", [name for name in DISTILLATION_LOSSES if name not in ("at", "skd", "ifvd")]
    )
    def test_other_map_counts_are_refused(self, scene, name):
        student, _, pixels = scene
        with pytest.raises(UserError, match="19 maps, the student 4"):
            compute(name, student, normal(2, 19, 4, 6), pixels)

    @pytest.mark.parametrize("name", ["kl", "dist", "boundary"])
    def test_softmax_does_not_see_a_constant(self, scene, name):
        student, _, pixels = scene
        shifted = student + normal(2, 1, 4, 6, seed=5)
        assert compute(name, student, shifted, pixels).max() <= 1e-12

    def test_channel_wise_softmax_is_over_positions(self, scene):
        student, _, pixels = scene
        assert compute("cwd", student, student + normal(2, CLASSES, 1, 1, seed=5), pixels).max() <= 1e-12
        assert compute("cwd", student, student + normal(2, 1, 4, 6, seed=5), pixels).min() > 1e-3

    @pytest.mark.parametrize("name", ["skd", "ifvd", "cirkd"])
    def test_cosine_does_not_see_the_length_of_a_cell(self, scene, name):
        student, _, _ = scene
        pixels = Pixels(torch.ones(2, 4, 6), torch.zeros(2, 4, 6, dtype=torch.int64), CLASSES)
        options = {"skd": {"pool": 1}}.get(name, {})
        lengths = 1 if name == "ifvd" else normal(2, 1, 4, 6, seed=5).abs() + 0.5
        assert compute(name, student, 3 * lengths * student, pixels, **options).max() <= 1e-9


class TestTemperature:
    @pytest.mark.parametrize("name", ["kl", "boundary"])
    def test_gradient_keeps_its_scale(self, scene, name):
        # Hinton et al.: t² keeps gradients comparable; for large t the loss tends to |s - t|² / 2K
        student, teacher, _ = scene
        student, teacher = (x - x.mean(1, keepdim=True) for x in (student, teacher))
        pixels = Pixels(torch.ones(2, 4, 6), torch.zeros(2, 4, 6, dtype=torch.int64), CLASSES)
        limit = ((student - teacher) ** 2).sum(1).mean((1, 2)) / (2 * CLASSES)
        torch.testing.assert_close(compute(name, student, teacher, pixels, t=1e4), limit, rtol=1e-3, atol=0)


class TestBoundary:
    def scene(self):
        """One image of two halves, 8×8 pixels at stride 1, the student wrong on the two columns at their boundary."""
        label = torch.zeros(1, 8, 8, dtype=torch.int64)
        label[..., 4:] = 1
        teacher = normal(1, 2, 8, 8)
        student = teacher.clone()
        student[..., 3:5] += normal(1, 2, 8, 2, seed=3)
        return student, teacher, Pixels(torch.ones(1, 8, 8), label, 2)

    def test_share_of_the_edge(self):
        student, teacher, pixels = self.scene()
        on_edge = kl(
            student[..., 3:5], teacher[..., 3:5], Pixels(torch.ones(1, 8, 2), torch.zeros(1, 8, 2), 2)
        )
        for edge in (0.0, 0.3, 1.0):
            torch.testing.assert_close(
                compute("boundary", student, teacher, pixels, radius=1, edge=edge), edge * on_edge
            )

    @pytest.mark.parametrize("everywhere", [False, True])
    def test_one_part_counts_alone(self, everywhere):
        student, teacher, pixels = self.scene()
        label = torch.arange(64).view(1, 8, 8) % 2 if everywhere else torch.zeros_like(pixels.label)
        pixels = replace(pixels, label=label)
        for edge in (0.0, 0.3, 1.0):
            torch.testing.assert_close(
                compute("boundary", student, teacher, pixels, edge=edge), kl(student, teacher, pixels)
            )

    @pytest.mark.parametrize("radius", [1, 2])
    def test_near_boundary(self, radius):
        label = torch.full((1, 5, 9), 3)
        label[0, 2, 4] = 1
        expected = torch.zeros(1, 5, 9, dtype=torch.bool)
        expected[0, 2 - radius : 3 + radius, 4 - radius : 5 + radius] = True
        assert near_boundary(label, torch.ones_like(expected), radius).equal(expected)

    def test_void_and_frame_are_no_boundary(self):
        label = torch.full((1, 5, 9), 3)
        label[0, 2, 4] = 255
        assert not near_boundary(label, label != 255, 2).any()
        assert near_boundary(label, torch.ones_like(label, dtype=torch.bool), 2).any()


class TestQuality:
    def test_cells_without_a_grasp_count_less(self, scene):
        student, teacher, pixels = scene
        teacher[:, 0] = 0
        teacher[:, 0, 2, 3] = 5.0  # clamped to 1
        student[:, 0] = teacher[:, 0]
        only = torch.zeros_like(pixels.weight)
        only[:, 8:12, 12:16] = pixels.weight[:, 8:12, 12:16]
        torch.testing.assert_close(
            compute("maps", student, teacher, pixels, quality=1.0),
            compute("maps", student, teacher, replace(pixels, weight=only)),
        )

    def test_no_grasp_anywhere_is_zero(self, scene):
        student, teacher, pixels = scene
        teacher[:, 0] = -1
        loss, gradient = backward("maps", student, teacher, pixels, quality=1.0)
        assert not loss.any()
        assert not gradient.any()


class TestGraspKl:
    def test_a_teacher_that_sees_no_grasp_says_nothing_of_its_shape(self, scene):
        student, teacher, pixels = scene
        teacher[:, 0] = student[:, 0] = -2
        assert not compute("grasp_kl", student, teacher, pixels).any()
        teacher[:, 0] = student[:, 0] = 2
        torch.testing.assert_close(
            compute("grasp_kl", student, teacher, pixels, beta=0.3),
            compute("maps", student[:, 1:], teacher[:, 1:], pixels, beta=0.3),
        )

    def test_certain_and_wrong_is_finite(self, scene):
        student, teacher, pixels = scene
        teacher[:, 0], student[:, 0] = 200, -200
        loss, gradient = backward("grasp_kl", student, teacher, pixels)
        assert torch.isfinite(loss).all()
        assert torch.isfinite(gradient).all()
        assert (loss > 190).all()


class TestPixels:
    def test_cell_weight_is_the_mean_of_the_cell(self):
        weight = torch.zeros(1, 4, 4)
        weight[0, 0, :2] = 1
        pixels = Pixels(weight, torch.zeros(1, 4, 4, dtype=torch.int64), 2)
        expected = torch.tensor([[[0.5, 0.0], [0.0, 0.0]]])
        torch.testing.assert_close(cell_weight(pixels, torch.Size((2, 2))), expected)
        assert cell_weight(pixels, torch.Size((4, 4))).equal(weight)

    @pytest.mark.parametrize("size", [(4, 6), (16, 24), (5, 7)])
    def test_class_weights_add_up_to_the_cell(self, size):
        pixels, size = make_pixels(), torch.Size(size)
        parts = class_weight(pixels, size)
        torch.testing.assert_close(parts.sum(1), cell_weight(pixels, size))
        of_class_2 = replace(pixels, weight=pixels.weight * (pixels.label == 2))
        torch.testing.assert_close(parts[:, 2], cell_weight(of_class_2, size))

    def test_image_mean(self):
        mean = image_mean(torch.tensor([[1.0, 5.0], [1.0, 2.0]]), torch.tensor([[3.0, 1.0], [0.0, 0.0]]))
        assert mean.tolist() == [2.0, 0.0]

    def test_weighted_kl_counts_a_double_weight_as_two_places(self):
        q, p, weight = normal(3, 4), normal(3, 4, seed=1), torch.tensor([2.0, 1.0, 0.0, 1.0])
        twice = [0, 0, 1, 3]
        torch.testing.assert_close(
            weighted_kl(q, p, weight), weighted_kl(q[:, twice], p[:, twice], torch.ones(4))
        )
