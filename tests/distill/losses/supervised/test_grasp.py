"""Losses of grasp maps: gradients, void, torch's own forms, and what the quality means."""

import pytest
import torch
from torch.nn import functional as F

from deploy.errors import UserError
from deploy.tasks.grasp.geometry import MAPS
from distill.losses.registry import GRASP_LOSSES
from distill.losses.supervised.grasp import bce, check_taught, mse, quality_kind, quality_of, smooth_l1
from distill.losses.task_loss import parse_task_terms, task_loss
from tests.distill.losses.dense import normal

OPTIONS = [
    ("smooth_l1", {}),
    ("smooth_l1", {"beta": 0.1}),
    ("smooth_l1", {"beta": 0.0}),
    ("smooth_l1", {"outside": 1.0}),
    ("mse", {}),
    ("mse", {"outside": 1.0}),
    ("bce", {}),
    ("bce", {"beta": 0.1, "geometry": 3.0}),
]
every_option = pytest.mark.parametrize(("name", "options"), OPTIONS)


@pytest.fixture
def scene():
    """Maps, targets with a grasp in the first of two images, and void that holds NaN."""
    target = normal(2, 4, 8, 12, seed=1)
    target[:, 0] = 0
    target[0, 0, 2:5, 3:9] = 1
    valid = torch.ones(2, 8, 12, dtype=torch.bool)
    valid[0, 4:6, :5] = False
    target.movedim(1, -1)[~valid] = torch.nan
    return normal(2, 4, 8, 12), target, valid


def compute(name, *scene, **options):
    return GRASP_LOSSES[name].function(*scene, **options)


def backward(name, maps, target, valid, **options):
    maps = maps.detach().clone().requires_grad_()
    loss = compute(name, maps, target, valid, **options)
    loss.backward()
    return loss.detach(), maps.grad


class TestEveryLoss:
    @every_option
    @pytest.mark.parametrize("stride", [1, 4])
    def test_gradient(self, scene, name, options, stride):
        maps = normal(2, 4, 8 // stride, 12 // stride, seed=3).requires_grad_()
        assert torch.autograd.gradcheck(lambda x: compute(name, x, *scene[1:], **options), (maps,))

    @every_option
    def test_void_has_no_influence(self, scene, name, options):
        maps, target, valid = scene
        expected, expected_gradient = backward(name, *scene, **options)
        void = ~valid.unsqueeze(1)
        loss, gradient = backward(
            name, torch.where(void, 1e4, maps), torch.where(void, 1.0, target), valid, **options
        )
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(gradient, expected_gradient)

    @every_option
    def test_all_void_is_zero_with_zero_gradient(self, scene, name, options):
        maps, target, valid = scene
        loss, gradient = backward(name, maps, target, torch.zeros_like(valid), **options)
        assert loss == 0
        assert not gradient.any()

    @every_option
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_finite_at_the_extremes(self, scene, name, options, dtype):
        maps, target, valid = scene
        for scale in (0.0, 1e4, -1e4):
            loss, gradient = backward(name, (scale * maps.sign()).to(dtype), target.float(), valid, **options)
            assert loss.dtype == torch.float32
            assert torch.isfinite(loss)
            assert torch.isfinite(gradient).all()

    @every_option
    def test_parts_of_a_batch_add_up_by_valid_pixels(self, scene, name, options):
        parts = [compute(name, *(x[i : i + 1] for x in scene), **options) for i in range(2)]
        count = scene[2].flatten(1).sum(1).double()
        torch.testing.assert_close(
            (torch.stack(parts) * count).sum() / count.sum(), compute(name, *scene, **options)
        )

    @every_option
    def test_unchanged_when_tiled(self, scene, name, options):
        maps, target, valid = scene
        tiled = (maps.tile(1, 1, 2, 3), target.tile(1, 1, 2, 3), valid.tile(1, 2, 3))
        torch.testing.assert_close(compute(name, *tiled, **options), compute(name, *scene, **options))

    @pytest.mark.parametrize("name", ["smooth_l1", "mse"])
    def test_every_map_counts_alike(self, scene, name):
        maps, target, valid = scene
        order = [2, 0, 3, 1]
        torch.testing.assert_close(
            compute(name, maps[:, order], target[:, order], valid), compute(name, *scene)
        )
        assert not torch.isclose(compute(name, maps[:, order], target, valid), compute(name, *scene))


def test_regression_equals_torch(scene):
    maps, target, valid = scene
    ours, theirs = (x.movedim(1, -1)[valid] for x in (maps, target))
    torch.testing.assert_close(mse(*scene), F.mse_loss(ours, theirs))
    torch.testing.assert_close(smooth_l1(*scene, beta=0.3), F.smooth_l1_loss(ours, theirs, beta=0.3))


def test_four_maps_as_added_up_in_the_papers(scene):
    maps, target, valid = (x[1:] for x in scene)  # without void
    total = sum(F.mse_loss(maps[:, i], target[:, i]) for i in range(len(MAPS)))
    torch.testing.assert_close(4 * mse(maps, target, valid), total)


class TestQuality:
    def test_others_count_at_grasps_alone(self, scene):
        maps, target, valid = (x[:1] for x in scene)
        is_grasp = valid & (target[:, 0] == 1)
        quality = F.binary_cross_entropy_with_logits(maps[:, 0][valid], target[:, 0][valid])
        shape = F.smooth_l1_loss(
            maps[:, 1:].movedim(1, -1)[is_grasp], target[:, 1:].movedim(1, -1)[is_grasp], beta=0.5
        )
        torch.testing.assert_close(bce(maps, target, valid, beta=0.5, geometry=2.0), quality + 2 * shape)

    def test_without_a_grasp_the_others_have_no_gradient(self, scene):
        _, gradient = backward("bce", *(x[1:] for x in scene))
        assert gradient[:, 0].all()
        assert not gradient[:, 1:].any()

    def test_what_is_deployed(self):
        raw = torch.tensor([-1e4, -0.5, 0.0, 0.25, 2.0])
        torch.testing.assert_close(quality_of(raw, "clamp"), torch.tensor([0.0, 0.0, 0.0, 0.25, 1.0]))
        torch.testing.assert_close(quality_of(raw, "sigmoid"), 1 / (1 + (-raw).exp()))

    def test_kind_by_losses(self):
        assert quality_kind(["smooth_l1", "mse"]) == quality_kind(["mse"]) == "clamp"
        assert quality_kind(["bce", "bce"]) == "sigmoid"
        with pytest.raises(UserError, match="a logit, mse, smooth_l1 as a number; use bce alone"):
            quality_kind(["smooth_l1", "bce", "mse"])

    def test_losses_fit_the_kind_of_the_teachers_quality(self):
        for loss, kind in (
            ("maps", "clamp"),
            ("cwd", "clamp"),
            ("grasp_kl", "sigmoid"),
            ("cwd", "sigmoid"),
        ):
            check_taught("--distill.loss", loss, kind)
        with pytest.raises(
            UserError, match=r"^--distill.aux maps: takes the quality as a number.*; use grasp_kl$"
        ):
            check_taught("--distill.aux", "maps", "sigmoid")
        with pytest.raises(UserError, match=r"^--distill.loss grasp_kl: takes .*; use maps\(quality=0.5\)$"):
            check_taught("--distill.loss", "grasp_kl", "clamp")


def test_sums_of_losses(scene):
    terms = parse_task_terms("smooth_l1(beta=0.5) + 2*mse", GRASP_LOSSES)
    expected = smooth_l1(*scene, beta=0.5) + 2 * mse(*scene)
    torch.testing.assert_close(task_loss(terms, GRASP_LOSSES, *scene), expected)
    with pytest.raises(
        UserError, match=r"^--loss.task: no loss is called kl; there are smooth_l1, mse, bce$"
    ):
        parse_task_terms("kl", GRASP_LOSSES)


class TestOutside:
    @pytest.mark.parametrize("name", ["smooth_l1", "mse"])
    def test_the_target_is_that_of_an_angle_of_0_as_in_the_authors_code(self, scene, name):
        maps, target, valid = scene
        angle_0 = target.clone()
        angle_0[:, 1] = torch.where(target[:, 0] == 0, 1.0, target[:, 1])
        expected = compute(name, maps, angle_0, valid)
        torch.testing.assert_close(compute(name, maps, target, valid, outside=1.0), expected)
        assert not torch.isclose(compute(name, maps, target, valid), expected)
