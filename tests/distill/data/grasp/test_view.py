"""Views of grasp data: image and targets move as one, depth comes without holes and about its mean."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from deploy.errors import UserError
from deploy.tasks.grasp.geometry import angle_between
from distill.config import AugmentConfig
from distill.data.grasp.affine import similarity_matrix, transform_grasps
from distill.data.grasp.augment import random_matrix, valid_mask, warp
from distill.data.grasp.sample import make_grasp_sample
from distill.data.grasp.stats import grasp_stats
from distill.data.grasp.targets import encode
from distill.data.grasp.view import GraspView
from distill.data.loader import train_batches
from distill.data.train_view import TrainView
from distill.distillation.teachers import fingerprint

SIDE = 64
CROP = AugmentConfig(crop=(SIDE, SIDE), scale=(0.8, 1.25), rotate=180, flip=True, vertical_flip=True)
CHANNELS = {1: ("depth",), 3: ("R", "G", "B"), 4: ("R", "G", "B", "depth")}


class Bars:
    """A bar in each image, brighter or nearer than the table, and one grasp across it."""

    def __init__(self, channels=1, count=4, side=SIDE, hole=True, blind=False) -> None:
        self.channels, self.side, self.hole, self.blind = channels, side, hole, blind
        self.ids = self.objects = [f"bar{index}" for index in range(count)]
        self.reads = 0

    def __len__(self) -> int:
        return len(self.ids)

    def truth(self, index: int) -> np.ndarray:
        scale = self.side / SIDE
        return np.array([[(30 + index) * scale, 33 * scale, 0.4 * index - 0.6, 24 * scale, 12 * scale]])

    def __getitem__(self, index: int):
        self.reads += 1
        grasp = self.truth(index)
        bar = encode(grasp, self.side, self.side)[0]
        depth = 0.8 - 0.1 * bar[..., None]
        if self.hole:
            depth[:5, :7] = np.nan
        if self.blind:
            depth[:] = np.nan
        rgb = np.stack([200 * bar, 100 + 0 * bar, 50 + 0 * bar], axis=2)
        image = {1: depth, 3: rgb.astype(np.uint8), 4: np.concatenate([rgb, depth], axis=2)}[self.channels]
        return make_grasp_sample(image, grasp, id=self.ids[index], object=self.objects[index])


def view(channels=1, augment: AugmentConfig | None = CROP, size=(SIDE, SIDE), mean=None, seed=0, **options):
    names = {"views", "cache"}
    bars = Bars(channels, **{key: value for key, value in options.items() if key not in names})
    kept = {key: value for key, value in options.items() if key in names}
    mean = [0.0] * channels if mean is None else mean
    return GraspView(
        bars, size=size, channels=CHANNELS[channels], augment=augment, mean=mean, seed=seed, **kept
    )


def test_openings_of_a_crop_are_in_the_unit_of_the_network():
    """A device decodes by half the shorter side of the network, whatever crops it was trained on."""
    augment = AugmentConfig(crop=(SIDE - 20, SIDE - 20), scale=(1.0, 1.0), flip=False, photometric=0)
    whole, crop = view(augment=None)[0, 1].label[3], view(augment=augment)[0, 1].label[3]
    assert whole.max() == pytest.approx(24 / (SIDE / 2))
    assert crop.max() == pytest.approx(24 / (SIDE / 2))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("augment", [CROP, replace(CROP, crop=(40, 50)), None])
def test_shapes_types_and_no_nan(channels, augment):
    sample = view(channels, augment)[0, 1]
    size = augment.crop if augment else (SIDE, SIDE)
    assert sample.image.shape == (channels, *size)
    assert sample.label.shape == (4, *size)
    assert sample.valid.shape == size
    assert [t.dtype for t in (sample.image, sample.label, sample.valid)] == [
        torch.float32,
        torch.float32,
        torch.bool,
    ]
    assert sample.image.isfinite().all()
    assert sample.id == "bar1"


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_targets_lie_on_the_visible_bar(channels):
    """The bar is the drawn part of its grasp, so the image itself says where the quality is 1."""
    views = view(channels, replace(CROP, photometric=0), hole=False)
    for epoch in range(30):
        sample = views[epoch, epoch % 4]
        bar = sample.image[0] > 100 if channels > 1 else sample.image[0] < -0.03
        quality = sample.label[0] == 1
        assert (bar != quality)[sample.valid].sum() <= 0.25 * quality.sum()


def test_turning_an_image_and_its_grasps_commutes_with_drawing():
    """encode(turn(grasps)) is turn(encode(grasps)) with its angles turned too, but for pixels at edges."""
    rng = np.random.default_rng(0)
    grasps = Bars().truth(1)
    for _ in range(10):
        angle, zoom = rng.uniform(-np.pi, np.pi), rng.uniform(0.8, 1.3)
        matrix = similarity_matrix((30, 33), (34, 30), angle, zoom, (False, False))
        first = encode(transform_grasps(grasps, matrix), SIDE, SIDE)
        quality, cos, sin, width = warp(
            encode(grasps, SIDE, SIDE).transpose(1, 2, 0), matrix, (SIDE, SIDE)
        ).transpose(2, 0, 1)
        both = (quality > 0.99) & (first[0] == 1)
        assert both.sum() > 0.7 * first[0].sum()
        assert np.abs(quality - first[0]).mean() < 0.02
        turned = np.arctan2(sin, cos)[both] / 2 + angle
        assert angle_between(turned, np.arctan2(first[2], first[1])[both] / 2).max() < 1e-3
        assert np.allclose(width[both] * zoom, first[3][both], atol=0.02)


def test_the_padding_has_the_mean_and_does_not_count():
    sample = view(4, replace(CROP, scale=(0.5, 0.5)), mean=[1, 2, 3, 0])[0, 0]
    assert 0.6 < (~sample.valid).float().mean() < 0.8
    assert sample.image[:, ~sample.valid].unique(dim=1).flatten().tolist() == [1, 2, 3, 0]


def test_valid_pixels_are_those_that_come_from_the_image():
    rng = np.random.default_rng(3)
    for _ in range(10):
        matrix = random_matrix(50, 70, replace(CROP, scale=(0.5, 1.5)), rng)
        seen = warp(np.full((50, 70), 255, np.uint8), matrix, CROP.crop)
        assert seen.shape == CROP.crop
        inside = valid_mask(matrix, (50, 70), CROP.crop)
        back = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
        for row, column in rng.integers(0, SIDE, (50, 2)):
            x, y, _ = back @ (column, row, 1)
            assert inside[row, column] == ((-0.5 <= x <= 69.5) and (-0.5 <= y <= 49.5))


def test_without_zoom_and_turn_nothing_is_interpolated():
    config = AugmentConfig(crop=(SIDE, SIDE), scale=(1, 1), flip=True, photometric=0)
    plain, changed = view(3, None), view(3, config)
    seen = {False, True}
    for epoch in range(12):
        before, after = plain[epoch, 2], changed[epoch, 2]
        mirrored = not torch.equal(before.image, after.image)
        assert torch.equal(before.image.flip(2) if mirrored else before.image, after.image)
        sign = torch.tensor([1, 1, -1, 1])[:, None, None]
        expected = before.label.flip(2) * sign if mirrored else before.label
        assert torch.allclose(expected, after.label, atol=1e-6)
        assert after.valid.all()
        seen.discard(mirrored)
    assert not seen


def test_depth_is_about_its_mean_over_what_is_seen():
    for epoch in range(5):
        sample = view(1)[epoch, 0]
        assert sample.image[0][sample.valid].mean().item() == pytest.approx(0, abs=1e-5)


def test_an_image_without_any_depth_does_not_count():
    sample = view(4, blind=True)[0, 0]
    assert not sample.valid.any()
    assert sample.image.unique().tolist() == [0]
    assert not view(1, None, blind=True)[0, 0].valid.any()


def test_network_scale():
    sample = view(1, None, side=2 * SIDE).at_scale(2)
    assert sample.image.shape == (1, SIDE, SIDE)
    x, y, angle, width, height = Bars(side=2 * SIDE).truth(2)[0]
    assert sample.grasps[0] == pytest.approx([x / 2 - 0.25, y / 2 - 0.25, angle, width / 2, height / 2])
    quality = view(1, None, side=2 * SIDE)[0, 2].label[0].numpy()
    near = sample.image[0].numpy() < -0.05
    assert (near != (quality == 1)).sum() < 0.2 * quality.sum()


def test_keys_alone_decide_a_sample():
    first, second = view(4, seed=3), view(4, seed=3, cache=False)
    for key in ((0, 1), (5, 2), (0, 1)):
        a, b = first[key], second[key]
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.label, b.label)
    assert not torch.equal(first[0, 1].label, first[1, 1].label)
    assert not torch.equal(first[0, 1].label, view(4, seed=4)[0, 1].label)


def test_fixed_views_repeat():
    fixed = view(1, views=2)
    assert torch.equal(fixed[0, 1].image, fixed[2, 1].image)
    assert not torch.equal(fixed[0, 1].image, fixed[1, 1].image)
    assert fingerprint(fixed) != fingerprint(view(1, views=3))  # pyright: ignore[reportArgumentType]


def test_the_cache_reads_each_image_once_and_is_shared():
    first, second = view(1), view(1)
    first.preload()
    for epoch in range(3):
        first[epoch, 0]
    assert first.reader.reads == 4
    second.preload(first)
    assert second.reader.reads == 0
    assert torch.equal(first[0, 3].image, second[0, 3].image)


def test_the_loader_batches_them():
    batches = list(train_batches(view(4), 3, seed=0, start_step=0, steps=2))  # pyright: ignore[reportArgumentType]
    assert batches[0].image.shape == (3, 4, SIDE, SIDE)
    assert batches[0].label.shape == (3, 4, SIDE, SIDE)
    assert batches[0].label.dtype == torch.float32
    assert len(batches[0].keys) == 3


def test_colors_are_jittered_and_depth_is_not():
    still = replace(CROP, scale=(1, 1), rotate=0, flip=False, vertical_flip=False)
    plain = view(4, replace(still, photometric=0))[0, 0].image
    changed = view(4, replace(still, photometric=0.5))[0, 0].image
    assert torch.equal(plain[3], changed[3])
    assert not torch.allclose(plain[:3], changed[:3], atol=1)


@pytest.mark.parametrize("rotate", [-1, 181])
def test_turns_are_from_0_to_180_degrees(rotate):
    with pytest.raises(UserError, match=r"--augment\.rotate .* 0\.\.180"):
        view(1, replace(CROP, rotate=rotate))


def test_segmentation_is_not_turned():
    with pytest.raises(UserError, match=r"--augment\.rotate 10: is not for segmentation"):
        TrainView(Bars(), size=(9, 9), augment=AugmentConfig(rotate=10), mean=(0,), optical=False)


def test_statistics_of_centered_depth():
    stats = grasp_stats(Bars(4), (SIDE, SIDE), CHANNELS[4])
    assert stats.mean[1:3] == pytest.approx((100, 50))
    assert stats.mean[3] == pytest.approx(0, abs=1e-6)
    assert 0.01 < stats.std[3] < 0.1
    assert sum(stats.class_pixels) == 4 * SIDE * SIDE
    drawn = sum(encode(Bars().truth(index), SIDE, SIDE)[0].sum() for index in range(4))
    assert stats.class_pixels[1] == drawn
