"""Supervised losses: identities, and agreement with independent implementations."""

import numpy as np
import pytest
import segmentation_models_pytorch.losses as smp
import torch
from scipy.ndimage import distance_transform_edt
from torch.nn import functional as F

from deploy.errors import UserError
from distill.losses.common import cross_entropy
from distill.losses.supervised.boundary import boundary, signed_distances
from distill.losses.supervised.lovasz import extension, jaccard_steps, lovasz, lovasz_hinge
from distill.losses.supervised.pixelwise import balanced_ce, focal
from distill.losses.supervised.region import dice, gdice, tversky
from tests.distill.losses.dense import normal
from tests.distill.losses.supervised.test_rules import WEIGHTS, make_scene

REGIONS = (dice, gdice, tversky, lovasz)


@pytest.fixture
def scene():
    return make_scene("ce")


@pytest.fixture
def two():
    return make_scene("lovasz_hinge")


def as_logits(prediction, classes=3):
    """Logits of a hard prediction N×H×W."""
    return 1e4 * F.one_hot(prediction, classes).movedim(-1, 1).double()


def image_means(values, valid):
    """Mean over images by valid pixels."""
    count = valid.flatten(1).sum(1).double()
    return (torch.stack(values) * count).sum() / count.sum()


class TestPixels:
    @pytest.mark.parametrize("weights", [None, WEIGHTS])
    def test_focal_without_gamma_is_cross_entropy(self, scene, weights):
        torch.testing.assert_close(
            focal(*scene, class_weights=weights, gamma=0.0), cross_entropy(*scene, class_weights=weights)
        )

    def test_focal_in_probabilities(self, scene):
        logits, label, valid = scene
        p = logits.softmax(1).movedim(1, -1)[valid].gather(1, label[valid][:, None]).squeeze(1)
        for gamma in (0.5, 2.0, 5.0):
            expected = ((1 - p) ** gamma * -p.log()).mean()
            torch.testing.assert_close(focal(*scene, gamma=gamma), expected)

    def test_focal_loss_of_a_pixel_that_is_right_keeps_its_digits(self):
        """1 - p is 2e-9 here, far below what float32 can tell from 1."""
        logits = torch.tensor([20.0, 0.0]).view(1, 2, 1, 1)
        label, valid = torch.zeros(1, 1, 1, dtype=torch.int64), torch.ones(1, 1, 1, dtype=torch.bool)
        wrong = np.exp(-20) / (1 + np.exp(-20))
        loss = focal(logits.double(), label, valid).item()
        assert loss == pytest.approx(wrong**2 * -np.log1p(-wrong), rel=1e-6)
        assert focal(logits, label, valid, gamma=0.5).item() >= 0

    def test_alpha_is_the_weight_of_what_is_not_background(self, scene):
        weights = torch.tensor([0.75, 0.25, 0.25], dtype=torch.float64)
        torch.testing.assert_close(focal(*scene, alpha=0.25), focal(*scene, class_weights=weights))

    @pytest.mark.parametrize("weights", [None, WEIGHTS])
    def test_balanced_is_weighted_by_inverse_frequency(self, scene, weights):
        logits, label, valid = scene
        label[:, 4:] = torch.where(valid[:, 4:], 0, 255)  # uneven
        frequency = torch.bincount(label[valid], minlength=3) / valid.sum()
        inverse = (1.0 if weights is None else weights) / frequency.double()
        expected = F.cross_entropy(logits, label, inverse, ignore_index=255)
        torch.testing.assert_close(balanced_ce(*scene, class_weights=weights), expected)
        assert not torch.isclose(expected, cross_entropy(*scene, class_weights=weights), rtol=1e-2)

    def test_balanced_without_a_class(self, scene):
        logits, label, valid = scene
        label = label.clamp(max=1)
        of_class = [F.cross_entropy(logits, torch.where(valid & (label == c), label, -100)) for c in (0, 1)]
        torch.testing.assert_close(balanced_ce(logits, label, valid), sum(of_class) / 2)


class TestRegions:
    @pytest.mark.parametrize("per_image", [0, 1])
    @pytest.mark.parametrize("weights", [None, WEIGHTS])
    def test_tversky_of_halves_is_dice(self, scene, weights, per_image):
        torch.testing.assert_close(
            tversky(*scene, class_weights=weights, alpha=0.5, beta=0.5, per_image=per_image),
            dice(*scene, class_weights=weights, per_image=per_image),
        )

    @pytest.mark.parametrize("loss", [*REGIONS, boundary])
    def test_the_label_itself_costs_nothing(self, scene, loss):
        _, label, valid = scene
        assert loss(as_logits(torch.where(valid, label, 0)), label, valid) == 0

    @pytest.mark.parametrize("loss", REGIONS)
    def test_the_opposite_costs_one(self, two, loss):
        _, label, valid = two
        opposite = as_logits(torch.where(valid, 1 - label, 0), 2)
        assert loss(opposite, label, valid).item() == pytest.approx(1, abs=1e-12)

    def test_hard_predictions_against_counts(self, scene):
        """Dice, Jaccard and generalized Dice of sets of pixels."""
        _, label, valid = scene
        guess = torch.randint(0, 3, label.shape, generator=torch.Generator().manual_seed(4))
        dices, ious, generalized = [], [], []
        for g, t, v in zip(guess.numpy(), label.numpy(), valid.numpy(), strict=True):
            present = np.unique(t[v])
            both = np.array([((g == c) & (t == c) & v).sum() for c in present])
            sizes = np.array([[((m == c) & v).sum() for c in present] for m in (g, t)])
            dices.append(torch.tensor(1 - (2 * both / sizes.sum(0)).mean()))
            ious.append(torch.tensor(1 - (both / (sizes.sum(0) - both)).mean()))
            w = 1 / sizes[1] ** 2
            generalized.append(torch.tensor(1 - 2 * (w * both).sum() / (w * sizes.sum(0)).sum()))
        logits = as_logits(guess)
        for loss, values in ((dice, dices), (lovasz, ious), (gdice, generalized)):
            torch.testing.assert_close(loss(logits, label, valid), image_means(values, valid))
        torch.testing.assert_close(
            tversky(logits, label, valid, alpha=1.0, beta=1.0), image_means(ious, valid)
        )

    def test_squared_dice_is_that_of_v_net(self, scene):
        logits, label, valid = (x[:1] for x in scene)
        p = logits.softmax(1).movedim(1, -1)[valid]
        g = F.one_hot(label[valid], 3)
        expected = (1 - 2 * (p * g).sum(0) / (p.square().sum(0) + g.sum(0))).mean()
        torch.testing.assert_close(dice(logits, label, valid, p=2.0), expected)

    @pytest.mark.parametrize(
        ("loss", "options", "theirs"),
        [
            (dice, {}, lambda: smp.DiceLoss("multiclass", ignore_index=255)),
            (
                tversky,
                {"alpha": 0.2, "beta": 0.9},
                lambda: smp.TverskyLoss("multiclass", ignore_index=255, alpha=0.2, beta=0.9),
            ),
            (lovasz, {}, lambda: smp.LovaszLoss("multiclass", ignore_index=255)),
        ],
    )
    def test_equals_segmentation_models_pytorch(self, scene, loss, options, theirs):
        """Theirs are of the batch as one image."""
        logits, label, valid = scene[0].float(), *scene[1:]
        torch.testing.assert_close(
            loss(logits, label, valid, per_image=0, **options), theirs()(logits, label)
        )


def jaccard_loss(wrong, truth):
    """1 - IoU of a class if the pixels of a set are wrong."""
    missed, false = (wrong & truth).sum(), (wrong & ~truth).sum()
    union = truth.sum() + false
    return 1 - (truth.sum() - missed) / union if union else 0.0


def lovasz_by_loop(errors, truth):
    """The definition: Σ errors in falling order times what each adds to the loss of the set so far."""
    wrong, total = np.zeros_like(truth), 0.0
    for index in np.argsort(-errors, kind="stable"):
        before = jaccard_loss(wrong, truth)
        wrong[index] = True
        total += max(errors[index], 0) * (jaccard_loss(wrong, truth) - before)
    return total


class TestLovasz:
    @pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
    def test_extension_by_its_definition(self, share):
        rng = np.random.default_rng(0)
        errors, truth = rng.normal(size=40), rng.random(40) < share
        valid = rng.random(40) < 0.8
        ours = extension(torch.tensor(errors)[None, None], torch.tensor(truth & valid)[None, None],
                         torch.tensor(valid)[None])  # fmt: skip
        assert ours.item() == pytest.approx(lovasz_by_loop(errors[valid], truth[valid]))

    def test_steps_keep_their_digits_over_a_million_pixels(self):
        truth = torch.rand(2**20, generator=torch.Generator().manual_seed(0)) < 0.5
        seen = truth.double().cumsum(0)
        total, rank = seen[-1], torch.arange(1, len(truth) + 1)
        jaccard = 1 - (total - seen) / (total + rank - seen)
        expected = torch.diff(jaccard, prepend=torch.zeros(1, dtype=torch.float64))
        torch.testing.assert_close(jaccard_steps(truth).double(), expected, rtol=1e-5, atol=1e-14)

    def test_hinge_equals_segmentation_models_pytorch(self, two):
        logits, label, valid = two[0].float(), *two[1:]
        margin = logits[:, 1] - logits[:, 0]
        for per_image in (0, 1):
            theirs = smp.LovaszLoss("binary", per_image=bool(per_image), ignore_index=255)
            if per_image:
                values = [theirs(m[None], t[None]) for m, t in zip(margin, label, strict=True)]
                expected = image_means(values, valid)
            else:
                expected = theirs(margin, label)
            torch.testing.assert_close(
                lovasz_hinge(logits, label, valid, per_image=per_image), expected, check_dtype=False
            )

    def test_hinge_is_the_jaccard_loss_of_class_1_twice_where_wrong(self, two):
        """At margins of ±1 a right pixel costs 0, a wrong one 2."""
        _, label, valid = two
        guess = torch.randint(0, 2, label.shape, generator=torch.Generator().manual_seed(4))
        logits = torch.stack([torch.zeros_like(guess), 2 * guess - 1], 1).double()
        values = [
            torch.tensor(2 * jaccard_loss(((g != t) & v).numpy(), ((t == 1) & v).numpy()))
            for g, t, v in zip(guess, label, valid, strict=True)
        ]
        torch.testing.assert_close(lovasz_hinge(logits, label, valid), image_means(values, valid).double())

    def test_hinge_is_for_two_classes(self, scene):
        with pytest.raises(UserError, match="for two classes, the logits have 3; use lovasz"):
            lovasz_hinge(*scene)


class TestBoundary:
    def test_distances_against_scipy(self, scene):
        _, label, valid = scene
        ours = signed_distances(label, valid, 4).numpy()
        for image, v, maps in zip(label.numpy(), valid.numpy(), ours, strict=True):
            for index in range(3):
                inside = (image == index) & v
                out = distance_transform_edt(~inside) - 0.5
                into = 0.5 - distance_transform_edt(~(v & ~inside))
                np.testing.assert_allclose(maps[index], v * np.where(inside, into, out), rtol=1e-6)
            assert not maps[3].any()

    def test_void_and_frame_are_not_contours(self):
        label = torch.ones(1, 5, 9, dtype=torch.int64)
        label[0, 2, 4] = 255
        assert not signed_distances(label, label != 255, 3).any()
        label[0, :, 0] = 0
        assert signed_distances(label, label != 255, 2)[0, 0, 0].tolist() == [
            -0.5,
            *(d + 0.5 for d in range(8)),
        ]

    def test_it_counts_how_far_a_contour_is_shifted(self):
        """A straight contour shifted by s pixels: distances ½, 3/2, … of s columns, so s²/2 a row."""
        label = (torch.arange(16) >= 8).long().expand(1, 4, 16)
        valid = torch.ones_like(label, dtype=torch.bool)
        for shift in (0, 1, 3):
            guess = (torch.arange(16) >= 8 + shift).long().expand(1, 4, 16)
            assert boundary(as_logits(guess, 2), label, valid).item() == pytest.approx(shift**2 / 2 / 16)

    def test_images_of_one_class_give_zero(self):
        label = torch.ones(1, 4, 4, dtype=torch.int64)
        logits = normal(1, 2, 4, 4).requires_grad_()
        loss = boundary(logits, label, torch.ones_like(label, dtype=torch.bool))
        loss.backward()
        assert loss == 0
        assert not logits.grad.any()
