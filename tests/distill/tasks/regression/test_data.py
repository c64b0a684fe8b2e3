"""The built-in depth from colors, and its augmented views."""

import numpy as np
import pytest
import torch

from deploy.bundle.manifest import InputSpec
from deploy.inference.preprocess import prepare
from distill.config import AugmentConfig, DataConfig
from distill.data.sample import Sample
from distill.tasks.regression.data import CAMERA, MapView, open_tabletop_depth

CONFIG = DataConfig("tabletop_depth", size=(48, 64), synthetic_counts=(3, 2, 2))
STILL = AugmentConfig(crop=(48, 64), scale=(1.0, 1.0), flip=False, photometric=0.0)


@pytest.fixture(scope="module")
def splits():
    return open_tabletop_depth(CONFIG, seed=0)


def view(splits, augment, **options):
    mean = (1.0, 2.0, 3.0)
    return MapView(splits.train, size=CONFIG.size, optical=True, augment=augment, mean=mean, **options)


def test_scenes_have_colors_and_the_table_at_one_depth(splits):
    sample = splits.train[0]
    assert sample.image.shape == (3, 48, 64)
    assert sample.image.max() > 1  # raw colors
    depth = sample.label[sample.valid]
    assert np.percentile(depth.numpy(), 90) == pytest.approx(CAMERA, abs=1e-3)
    assert CAMERA - 0.2 < depth.min() < CAMERA  # things rise towards the camera
    assert torch.isnan(sample.label[~sample.valid]).all()
    again = open_tabletop_depth(CONFIG, seed=0).train[0]
    assert torch.equal(again.image, sample.image)


def test_without_augmentation_a_view_is_the_scene(splits):
    sample, plain = splits.train[1], view(splits, None)[0, 1]
    assert torch.equal(plain.image, sample.image)
    assert torch.equal(plain.valid, sample.valid)
    assert torch.equal(plain.label[plain.valid], sample.label[sample.valid])
    assert torch.isfinite(plain.label).all()


def test_image_and_map_are_mirrored_together(splits):
    plain = view(splits, None)[0, 0]
    mirrored = view(splits, AugmentConfig(**{**vars(STILL), "vertical_flip": True}))
    flips = [
        key for key in ((epoch, 0) for epoch in range(8)) if not torch.equal(mirrored[key].image, plain.image)
    ]
    assert flips
    sample = mirrored[flips[0]]
    torch.testing.assert_close(sample.image, plain.image.flip(1))
    assert torch.equal(sample.valid, plain.valid.flip(0))
    torch.testing.assert_close(sample.label, plain.label.flip(0))


def test_padding_has_the_mean_and_is_not_valid(splits):
    small = view(splits, AugmentConfig(crop=(96, 128), scale=(1.0, 1.0), flip=False, photometric=0.0))[0, 0]
    outside = ~small.valid
    assert outside.float().mean() > 0.7
    corner = small.image[:, outside][:, :1].flatten()
    assert corner.tolist() in ([1.0, 2.0, 3.0], small.image[:, 0, 0].tolist())
    assert (small.label[outside] == 0).all()


def test_views_repeat_and_epochs_differ(splits):
    augment = AugmentConfig(crop=(32, 32), scale=(0.8, 1.2), rotate=20)
    fixed, fresh = view(splits, augment, views=2), view(splits, augment)
    assert torch.equal(fixed[0, 1].image, fixed[2, 1].image)
    assert not torch.equal(fresh[0, 1].image, fresh[2, 1].image)


class Radar:
    """Three images in dB with heights in meters; columns 0 to 9 have no data, the third image has none at all."""

    ids = ("a", "b", "empty")

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        image = -15 + 3 * torch.randn(3, 40, 60, generator=generator)
        image[0, :, : 60 if index == 2 else 10] = torch.nan
        valid = torch.isfinite(image).all(0)
        height = torch.where(valid, 100 + image[1], torch.nan)
        return Sample(image, height, valid, self.ids[index])


@pytest.mark.parametrize("size", [(40, 60), (20, 30), (48, 64)])
def test_float_images_are_those_of_the_device(size):
    mean = (-15.0, -14.0, -13.0)
    plain = MapView(Radar(), size=size, optical=False, augment=None, mean=mean)[0, 0]
    height, width = size
    spec = InputSpec(("A", "B", "C"), height, width, "float32", "NCHW", mean, (1.0,) * 3, nodata="nan")
    expected, _ = prepare(Radar()[0].image.permute(1, 2, 0).numpy(), spec)
    np.testing.assert_array_equal(plain.image.numpy(), expected)
    assert plain.image.min() < 0
    assert 0 < (~plain.valid).float().mean() < 0.25
    assert (plain.label[plain.valid] > 50).all()


def test_float_images_keep_their_values_when_augmented():
    augment = AugmentConfig(crop=(40, 60), scale=(1.0, 1.0), vertical_flip=True, photometric=1.0)
    view = MapView(Radar(), size=(40, 60), optical=False, augment=augment, mean=(-15.0, -14.0, -13.0))
    for sample in (view[0, index] for index in range(3)):
        assert torch.isfinite(sample.image).all()
        torch.testing.assert_close(sample.label[sample.valid], 100 + sample.image[1][sample.valid])
    empty = view[0, 2]
    assert not empty.valid.any()
    assert (empty.label == 0).all()
