"""Augmentation: image, label and valid mask move as one, and colors change only where they may."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tf

from deploy.errors import UserError
from distill.config import AugmentConfig
from distill.data.augment import augment_sample, jitter_colors
from distill.data.sample import Sample

GEOMETRY = AugmentConfig(crop=(24, 40), scale=(0.5, 2.0), flip=True, vertical_flip=True, photometric=0.0)
MEAN = (-7.0, -8.0, -9.0)


def coordinates(height=30, width=36, void=True) -> Sample:
    """A sample whose image, label and valid mask each say where they are.

    Channels are row, column and a checkable constant; the label is row // 2 * 18 + column // 2 modulo 251.
    """
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    valid = (y + x) % 5 != 0 if void else torch.ones_like(y, dtype=torch.bool)
    label = ((y // 2) * 18 + x // 2) % 251
    image = torch.stack([y, x, torch.full_like(y, 3)]).float()
    return Sample(image, torch.where(valid, label, 255), valid, "coordinates")


def variants(config, count=60, sample=None, optical=False, mean=MEAN):
    sample = sample or coordinates()
    return [
        augment_sample(sample, config, np.random.default_rng(seed), mean, optical) for seed in range(count)
    ]


def test_output_is_exactly_the_crop_in_the_contracted_types():
    for sample in variants(GEOMETRY):
        assert sample.image.shape == (3, 24, 40)
        assert sample.label.shape == sample.valid.shape == (24, 40)
        assert (sample.image.dtype, sample.label.dtype, sample.valid.dtype) == (
            torch.float32,
            torch.int64,
            torch.bool,
        )
        assert type(sample.image) is type(sample.label) is type(sample.valid) is torch.Tensor


def test_label_stays_under_its_pixel():
    """At each valid output pixel, the coordinates in the image are those of the source pixel of its label."""
    for sample in variants(GEOMETRY):
        row, column = sample.image[0][sample.valid], sample.image[1][sample.valid]
        label = sample.label[sample.valid]
        # The label tells a block of 2×2 source pixels, up to the modulus: the position must lie in it or at most
        # half a pixel (nearest neighbor) and a bit (antialiasing near the border) outside.
        number = torch.arange(15)[:, None] * 18 + torch.arange(18)
        blocks = (number % 251)[None] == label[:, None, None]
        y, x = torch.arange(15)[:, None] * 2 + 0.5, torch.arange(18) * 2 + 0.5
        off = torch.maximum(
            (row[:, None, None] - y).abs().expand_as(blocks),
            (column[:, None, None] - x).abs().expand_as(blocks),
        )
        nearest = torch.where(blocks, off, torch.inf).amin(dim=(1, 2))
        assert nearest.max() <= 0.5 + 0.5 + 0.51
        assert nearest.mean() <= 0.75  # a constant shift of half a pixel would show here


def test_the_masks_of_an_image_without_labels_move_with_it():
    """Where the crop shows a pixel, the masks are those of a label that tells the same."""
    gap = torch.zeros(30, 36, dtype=torch.bool)
    gap[8:20, 5:25] = True
    sample = coordinates(void=False)
    told = replace(sample, label=torch.where(gap, 255, 0), valid=~gap)
    unknown = replace(told, label=torch.full_like(told.label, 255), unlabeled=~gap)
    for expected, found in zip(
        variants(GEOMETRY, sample=told), variants(GEOMETRY, sample=unknown), strict=True
    ):
        assert torch.equal(found.image, expected.image)
        assert torch.equal(found.valid, expected.valid)
        assert torch.equal(found.unlabeled, expected.valid)
        assert not found.labeled.any()
        assert (found.label == 255).all()
        assert expected.unlabeled is None


def test_masks_are_not_shifted_against_the_image():
    """Mean signed offset between image and label is nil (plain nearest neighbor would give up to half a pixel)."""
    config = replace(GEOMETRY, scale=(0.5, 0.5), crop=(15, 18), flip=False, vertical_flip=False)
    height, width = 30, 36
    y = torch.arange(height)[:, None].expand(height, width)
    sample = Sample(y[None].float(), y.clone(), torch.ones(height, width, dtype=torch.bool), "rows")
    result = augment_sample(sample, config, np.random.default_rng(0), (0.0,), optical=False)
    offset = result.label.float() - result.image[0]
    assert result.valid.all()
    assert 0.4 < offset.abs().mean() < 0.6  # two source rows per output row: the center lies between them
    assert result.label[:, 0].tolist() == list(range(1, 30, 2))


def test_validity_moves_with_the_label():
    for sample in variants(GEOMETRY):
        assert torch.equal(sample.valid, sample.label != 255)


def test_outside_of_the_image_is_mean_void_and_invalid():
    config = replace(GEOMETRY, scale=(0.5, 0.5), crop=(48, 48))
    for sample in variants(config, sample=coordinates(void=False), count=20):
        outside = sample.image[2] == MEAN[2]
        assert outside.sum() == 48 * 48 - 15 * 18  # 30×36 at half size
        assert (torch.tensor(MEAN) == sample.image[:, outside].T).all()
        assert torch.equal(sample.valid, ~outside)
        assert (sample.label[outside] == 255).all()
        assert (sample.image[2][~outside] == 3).all()  # no fill value bleeds into the image


def test_zoom_covers_its_range():
    """The step of the row coordinate between neighboring pixels is 1 / zoom."""
    config = replace(GEOMETRY, crop=(8, 8), flip=False, vertical_flip=False)
    steps = [float(s.image[0].diff(dim=0).median()) for s in variants(config, 200, coordinates(void=False))]
    assert min(steps) == pytest.approx(0.5, abs=0.1)
    assert max(steps) == pytest.approx(2.0, abs=0.15)
    assert 0.35 < np.mean(np.array(steps) > 1) < 0.65  # as often out as in


def test_flips_happen_in_half_of_the_samples_and_only_when_asked():
    still = replace(GEOMETRY, scale=(1.0, 1.0), crop=(30, 36))
    for config, axis, share in [
        (still, 2, 0.5),
        (still, 1, 0.5),
        (replace(still, flip=False), 2, 0.0),
        (replace(still, vertical_flip=False), 1, 0.0),
    ]:
        channel = 1 if axis == 2 else 0
        turned = np.mean([float(s.image[channel].diff(dim=axis - 1).mean()) < 0 for s in variants(config)])
        assert turned == pytest.approx(share, abs=0.25 if share else 0)


def test_whole_image_comes_back_untouched_without_changes():
    config = AugmentConfig(crop=(30, 36), scale=(1.0, 1.0), flip=False, photometric=0.0)
    source = coordinates()
    result = augment_sample(source, config, np.random.default_rng(0), MEAN, optical=True)
    assert torch.equal(result.image, source.image)
    assert torch.equal(result.label, source.label)


@pytest.mark.parametrize(("channels", "optical"), [(3, False), (2, False), (1, True), (4, True)])
def test_photometric_leaves_radar_and_other_channel_counts_alone(channels, optical):
    image = torch.rand(channels, 12, 12) * 255
    source = Sample(image, torch.zeros(12, 12).long(), torch.ones(12, 12, dtype=torch.bool), "a")
    config = AugmentConfig(crop=(12, 12), scale=(1.0, 1.0), flip=False, photometric=0.9)
    for result in variants(config, 10, source, optical, mean=(0.0,) * channels):
        assert torch.equal(result.image, image)


def test_photometric_changes_optical_colors_but_neither_labels_nor_padding():
    image = torch.randint(0, 256, (3, 12, 12), dtype=torch.uint8)
    source = Sample(image, torch.zeros(12, 12, dtype=torch.uint8), torch.ones(12, 12, dtype=torch.bool), "a")
    config = AugmentConfig(crop=(12, 20), scale=(1.0, 1.0), flip=False, photometric=0.5)
    mean = (100.25, 90.5, 80.75)
    for result in variants(config, 10, source, optical=True, mean=mean):
        assert result.image.min() >= 0
        assert result.image.max() <= 255.001
        assert (torch.tensor(mean) == result.image[:, ~result.valid].T).all()
        assert (result.label[result.valid] == 0).all()
        assert not torch.equal(result.image[:, result.valid], image.float().flatten(1))


def test_jitter_of_strength_zero_is_the_identity_and_clamps_otherwise():
    image = np.random.default_rng(0).uniform(0, 255, (8, 8, 3)).astype(np.float32)
    before = image.copy()
    same = jitter_colors(image, 0.0, np.random.default_rng(0))
    np.testing.assert_allclose(same, image, atol=1e-3)
    white = jitter_colors(np.full((8, 8, 3), 250, np.float32), 1.0, np.random.default_rng(1))
    assert white.max() <= 255
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("seed", range(8))
def test_jitter_is_torchvisions(seed):
    image = np.random.default_rng(seed).uniform(0, 255, (31, 17, 3)).astype(np.float32)
    expected = torchvision_jitter(torch.from_numpy(image).permute(2, 0, 1), 0.8, np.random.default_rng(seed))
    changed = jitter_colors(image, 0.8, np.random.default_rng(seed))
    assert changed.dtype == np.float32
    np.testing.assert_allclose(changed, expected.permute(1, 2, 0), atol=1e-3)


def torchvision_jitter(image, strength, rng):
    changes = (tf.adjust_brightness, tf.adjust_contrast, tf.adjust_saturation)
    pixels = image / 255
    for number in rng.permutation(3):
        pixels = changes[number](pixels, float(rng.uniform(max(0.0, 1 - strength), 1 + strength)))
    return pixels * 255


@pytest.mark.parametrize("zoom", [0.5, 0.8, 1.0, 1.7])
@pytest.mark.parametrize(
    ("channels", "optical", "lies"), [(3, True, "HWC"), (3, True, "CHW"), (1, True, "CHW"), (2, False, "CHW")]
)
def test_the_zoom_is_torchvisions_bit_by_bit(zoom, channels, optical, lies):
    """A crop that shows all of the image, so that nothing but the zoom is left."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, channels), dtype=np.uint8)
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    image = image if optical else image.float() - 100.5
    image = image if lies == "HWC" else image.contiguous()
    crop = (round(40 * zoom), round(60 * zoom))
    config = AugmentConfig(crop=crop, scale=(zoom, zoom), flip=False, photometric=0.0)
    source = Sample(image, torch.zeros(40, 60).byte(), torch.ones(40, 60).bool(), "a")
    result = augment_sample(source, config, np.random.default_rng(0), (0.0,) * channels, optical)
    expected = tf.resize_image(image.contiguous(), list(crop), antialias=True)
    assert torch.equal(result.image, expected.float())
    assert result.image.is_contiguous()
    assert result.valid.all()


def test_randomness_comes_from_the_generator_alone():
    before = torch.random.get_rng_state()
    first = augment_sample(coordinates(), AugmentConfig(), np.random.default_rng(5), MEAN, optical=True)
    torch.manual_seed(999)
    second = augment_sample(coordinates(), AugmentConfig(), np.random.default_rng(5), MEAN, optical=True)
    assert torch.equal(first.image, second.image)
    torch.random.set_rng_state(before)
    augment_sample(coordinates(), AugmentConfig(), np.random.default_rng(6), MEAN, optical=True)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"crop": (0, 8)}, "augment.crop"),
        ({"scale": (2.0, 0.5)}, "augment.scale"),
        ({"scale": (0.0, 1.0)}, "augment.scale"),
        ({"photometric": 1.5}, "augment.photometric"),
    ],
)
def test_invalid_settings_are_named(change, named):
    with pytest.raises(UserError, match=named):
        AugmentConfig(**change)
