"""Rules of every supervised loss: right gradients, void without influence, finite at extremes, sums over a batch."""

import pytest
import torch
from torch.nn import functional as F

from distill.losses.common import cross_entropy
from distill.losses.expression import Term
from distill.losses.registry import SEGMENTATION_LOSSES
from distill.losses.task_loss import task_loss
from tests.distill.losses.dense import normal

NAMES = list(SEGMENTATION_LOSSES)
BY_IMAGE = ("dice", "gdice", "tversky", "lovasz", "lovasz_hinge", "boundary")
WEIGHTS = torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64)
OPTIONS = [
    *((name, {}) for name in NAMES),
    ("focal", {"gamma": 0.5, "alpha": 0.25}),
    ("focal", {"gamma": 0.0}),
    ("dice", {"p": 2.0}),
    ("tversky", {"alpha": 0.0, "beta": 1.0}),
    ("tversky", {"alpha": 1.0, "beta": 0.0}),
    *((name, {"per_image": 0}) for name in BY_IMAGE if name != "boundary"),
]
every_loss = pytest.mark.parametrize("name", NAMES)
every_option = pytest.mark.parametrize(("name", "options"), OPTIONS)


def classes_of(name):
    return 2 if name == "lovasz_hinge" else 3


def make_scene(name, size=(16, 24)):
    """Logits at the label's size, so that each pixel is its own; labels of patches, void in a corner and a stripe."""
    classes = classes_of(name)
    generator = torch.Generator().manual_seed(1)
    label = torch.randint(0, classes, (2, size[0] // 4, size[1] // 4), generator=generator)
    label = label.repeat_interleave(4, 1).repeat_interleave(4, 2)
    valid = torch.ones(2, *size, dtype=torch.bool)
    valid[0, :8, :8] = False
    valid[1, -3] = False
    label[~valid] = 255
    return normal(2, classes, *size), label, valid


def compute(name, *scene, class_weights=None, **options):
    return SEGMENTATION_LOSSES[name].function(*scene, class_weights, **options)


def backward(name, logits, label, valid, **options):
    logits = logits.detach().clone().requires_grad_()
    loss = compute(name, logits, label, valid, **options)
    loss.backward()
    return loss.detach(), logits.grad


class TestEveryLoss:
    @every_option
    @pytest.mark.parametrize("stride", [1, 4])
    def test_gradient(self, name, options, stride):
        _, label, valid = make_scene(name, (8, 12))
        logits = normal(2, classes_of(name), 8 // stride, 12 // stride, seed=3).requires_grad_()
        weights = WEIGHTS[: classes_of(name)]
        assert torch.autograd.gradcheck(
            lambda x: compute(name, x, label, valid, class_weights=weights, **options), (logits,)
        )

    @every_option
    def test_void_has_no_influence(self, name, options):
        logits, label, valid = make_scene(name)
        expected, expected_gradient = backward(name, logits, label, valid, **options)
        void = ~valid
        logits = torch.where(void.unsqueeze(1), 1e4 * normal(*logits.shape, seed=5), logits)
        for other in (0, 1, -7, 1000):
            loss, gradient = backward(name, logits, torch.where(void, other, label), valid, **options)
            torch.testing.assert_close(loss, expected)
            torch.testing.assert_close(gradient, expected_gradient)
            assert not gradient.movedim(1, -1)[void].any()

    @every_option
    @pytest.mark.parametrize("weights", [None, WEIGHTS])
    def test_all_void_is_zero_with_zero_gradient(self, name, options, weights):
        logits, label, valid = make_scene(name)
        weights = weights if weights is None else weights[: classes_of(name)]
        loss, gradient = backward(
            name, logits, label, torch.zeros_like(valid), class_weights=weights, **options
        )
        assert loss == 0
        assert not gradient.any()  # NaN would be true

    @every_option
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    def test_saturated_logits_are_finite(self, name, options, dtype):
        _, label, valid = make_scene(name)
        classes = torch.arange(classes_of(name))[:, None, None]
        right = torch.where(label.unsqueeze(1) == classes, 1e4, -1e4).to(dtype)
        for logits in (right, -right, torch.zeros_like(right), torch.full_like(right, -1e4)):
            loss, gradient = backward(name, logits, label, valid, **options)
            assert torch.isfinite(loss)
            assert torch.isfinite(gradient).all()
            assert (loss < 1e-6) == (logits is right)

    @every_option
    @pytest.mark.parametrize("index", [0, 1])
    def test_images_of_one_class(self, name, options, index):
        logits, label, valid = make_scene(name)
        label = torch.full_like(label, index)
        for scores in (logits, 1e4 * logits):
            loss, gradient = backward(name, scores, label, valid, **options)
            assert torch.isfinite(loss)
            assert torch.isfinite(gradient).all()
            # no contour; and nothing but false alarms counts, of which there can be none
            blind = name == "boundary" or options.get("beta") == 0
            assert bool(gradient.any()) or blind or scores is not logits

    @every_loss
    def test_half_precision_is_computed_in_float32(self, name):
        logits, label, valid = make_scene(name)
        half = logits.bfloat16()
        loss, gradient = backward(name, half, label, valid)
        assert loss.dtype == torch.float32
        assert gradient.dtype == torch.bfloat16
        torch.testing.assert_close(
            loss, compute(name, half.double(), label, valid).float(), rtol=1e-5, atol=1e-6
        )

    @every_loss
    def test_autocast_changes_nothing(self, name):
        logits, label, valid = make_scene(name)
        expected = compute(name, logits.float(), label, valid)
        with torch.autocast("cpu", torch.bfloat16):
            assert compute(name, logits.float(), label, valid).equal(expected)

    @every_loss
    def test_logits_are_upsampled_bilinearly(self, name):
        _, label, valid = make_scene(name)
        logits = normal(2, classes_of(name), 4, 6)
        full = F.interpolate(logits, label.shape[-2:], mode="bilinear", align_corners=False)
        torch.testing.assert_close(compute(name, logits, label, valid), compute(name, full, label, valid))

    @pytest.mark.parametrize("name", [name for name in NAMES if name != "lovasz_hinge"])
    def test_classes_may_be_in_any_order(self, name):
        logits, label, valid = make_scene(name)
        order = torch.tensor([2, 0, 1])
        moved = torch.where(valid, order.argsort()[torch.where(valid, label, 0)], 255)
        torch.testing.assert_close(
            compute(name, logits[:, order], moved, valid, class_weights=WEIGHTS[order]),
            compute(name, logits, label, valid, class_weights=WEIGHTS),
        )
        assert not torch.isclose(
            compute(name, logits[:, order], label, valid), compute(name, logits, label, valid)
        )

    @pytest.mark.parametrize("name", [name for name in NAMES if name != "boundary"])
    def test_unchanged_when_tiled(self, name):
        logits, label, valid = make_scene(name)
        torch.testing.assert_close(
            compute(name, logits.tile(1, 1, 2, 3), label.tile(1, 2, 3), valid.tile(1, 2, 3)),
            compute(name, logits, label, valid),
        )

    @every_loss
    @pytest.mark.parametrize("weights", [None, WEIGHTS])
    def test_parts_of_a_batch_add_up_by_valid_pixels(self, name, weights):
        logits, label, valid = make_scene(name)
        weights = weights if weights is None else weights[: classes_of(name)]
        parts = [compute(name, *(x[i : i + 1] for x in (logits, label, valid)), class_weights=weights)
                 for i in range(2)]  # fmt: skip
        share = valid.flatten(1).sum(1).double() / valid.sum()
        whole = compute(name, logits, label, valid, class_weights=weights)
        exact = name in BY_IMAGE or (weights is None and name != "balanced_ce")
        assert torch.isclose((torch.stack(parts) * share).sum(), whole, rtol=1e-9) == exact

    @pytest.mark.parametrize("name", [name for name in BY_IMAGE if name != "boundary"])
    def test_the_batch_as_one_image(self, name):
        logits, label, valid = make_scene(name)
        joined = (logits.transpose(0, 1).flatten(1, 2).unsqueeze(0), label.flatten(0, 1)[None])
        torch.testing.assert_close(
            compute(name, logits, label, valid, per_image=0),
            compute(name, *joined, valid.flatten(0, 1)[None]),
        )

    @pytest.mark.parametrize("name", [name for name in NAMES if name not in ("lovasz_hinge",)])
    def test_class_weights_matter_by_their_ratio(self, name):
        scene = make_scene(name)
        weighted = compute(name, *scene, class_weights=WEIGHTS)
        torch.testing.assert_close(compute(name, *scene, class_weights=10 * WEIGHTS), weighted)
        torch.testing.assert_close(compute(name, *scene, class_weights=torch.ones(3)), compute(name, *scene))
        assert not torch.isclose(weighted, compute(name, *scene))


def test_terms_are_added_up_by_weight():
    scene = (*make_scene("ce"), WEIGHTS)
    terms = (Term(1, "ce"), Term(0.5, "dice", None, {"p": 2.0}))
    expected = cross_entropy(*scene) + 0.5 * SEGMENTATION_LOSSES["dice"].function(*scene, p=2.0)
    torch.testing.assert_close(task_loss(terms, SEGMENTATION_LOSSES, *scene), expected)
    assert task_loss(terms[:1], SEGMENTATION_LOSSES, *scene).equal(cross_entropy(*scene))
