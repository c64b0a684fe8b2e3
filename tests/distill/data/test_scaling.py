"""Statistics of scaled pixels, and images that are prepared for them."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from deploy.bundle.manifest import ClassInfo
from deploy.bundle.pixel_scale import LINEAR, PixelScale
from deploy.errors import UserError
from distill.config import AugmentConfig, DataConfig, RunConfig
from distill.data.sample import Sample, make_sample
from distill.data.scaling import PERCENTILES, in_scale, scaled
from distill.data.splits import Splits
from distill.data.stats import Stats, compute_stats
from distill.presets import quick
from distill.tasks.regression.task import RegressionTask
from distill.tasks.segmentation import SegmentationTask
from tests.distill.data.listed import Listed

CONFIG = replace(quick(), data=DataConfig("made", size=(16, 16), scale="log"))
PERCENTILE = replace(CONFIG, data=replace(CONFIG.data, scale="percentile"))


def image(index: int, unit: float = 1.0) -> np.ndarray:
    """Amplitudes 16×16×2 with zeros, negative noise and pixels without data."""
    rng = np.random.default_rng(index)
    pixels = np.exp(rng.normal((-3, 7), (1.5, 0.7), (16, 16, 2)))
    pixels[2, :5, 0] = 0
    pixels[3, :5, 1] = -0.5
    pixels[:2, :, 1] = np.nan
    return (unit * pixels).astype(np.float32)


def splits(unit: float = 1.0, shift: float = 0.0) -> Splits:
    label = np.random.default_rng(9).integers(0, 2, (16, 16))
    reader = Listed(
        [make_sample(image(index, unit) - shift, label, id=str(index), num_classes=2) for index in range(3)]
    )
    names = tuple(ClassInfo(name, (0, 0, 0)) for name in ("a", "b"))
    return Splits("made", names, ("near", "far"), False, reader, reader, reader)


def made(*images: np.ndarray) -> Splits:
    """Images H×W×1 whose pixels all have a label."""
    samples = [
        make_sample(one, np.zeros(one.shape[:2], np.uint8), id=str(index), num_classes=2)
        for index, one in enumerate(images)
    ]
    return replace(splits(), channels=("near",), train=Listed(samples))


def measured(data: Splits, config: RunConfig = CONFIG) -> Stats:
    return SegmentationTask((), 2).statistics(config, data)


def clip_of(*images: np.ndarray) -> tuple[float, float]:
    """The range of the only channel."""
    [ends] = measured(made(*images), PERCENTILE).scale.limits
    return ends


def test_mean_and_deviation_are_of_the_logarithms_of_valid_pixels():
    stats = measured(splits())
    pixels = np.concatenate([image(index)[2:].reshape(-1, 2) for index in range(3)]).astype(np.float64)
    floor = pixels.mean(axis=0) / 1e4
    logarithms = np.log(np.maximum(pixels, floor))
    assert (pixels <= 0).any(axis=0).all()
    assert stats.log_floor == pytest.approx(floor, rel=1e-9)
    np.testing.assert_allclose(stats.mean, logarithms.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(stats.std, logarithms.std(axis=0), rtol=1e-6)
    assert (sum(stats.class_pixels), stats.images) == (len(pixels), 3)


def test_the_unit_does_not_matter():
    small, large = measured(splits()), measured(splits(unit=5e3))
    assert large.std == pytest.approx(small.std, rel=1e-5)
    assert large.mean == pytest.approx([mean + math.log(5e3) for mean in small.mean], rel=1e-5)


def test_linear_statistics_take_one_pass():
    data = splits()
    assert in_scale("linear", data.train, data.channels) == (data.train, LINEAR)
    config = replace(CONFIG, data=replace(CONFIG.data, scale="linear"))
    assert SegmentationTask((), 2).statistics(config, data) == compute_stats(data.train, 2)


def test_a_mean_that_is_not_above_zero_is_refused_by_name():
    with pytest.raises(
        UserError, match=r"channel near has the mean -\d.*decibels are logarithms already"
    ) as found:
        measured(splits(shift=5.0))
    assert "\n" not in str(found.value)
    assert "--data.scale log" in str(found.value)


def test_values_at_or_below_zero_count_as_the_floor():
    scale = PixelScale(log_floor=(0.01, 2.0))
    found = scaled(torch.tensor([[0.0, -3.0, 0.01, 1.0], [-1.0, 2.0, 0.0, math.e]]).view(2, 1, 4), scale)
    low, high = math.log(0.01), math.log(2.0)
    expected = torch.tensor([[low, low, low, 0.0], [high, high, high, 1.0]]).view(2, 1, 4)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("base", [CONFIG, PERCENTILE], ids=["log", "percentile"])
def test_what_fills_crops_and_pixels_without_data_becomes_zero(base):
    config = replace(base, augment=AugmentConfig(crop=(24, 24), scale=(1.0, 1.0), flip=False))
    data = splits()
    stats = measured(data, config)
    view = SegmentationTask((), 2).view(config, data, stats)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (stats.mean, stats.std))
    view = replace(view, cache=False)  # the same again
    sample = view[0, 0]
    network = (scaled(sample.image, stats.scale) - mean) / std
    outside = ~sample.valid
    assert outside.sum() == 24 * 24 - 14 * 16
    assert network[:, outside].abs().max() < 1e-6
    assert (network[:, sample.valid].abs() > 1e-3).float().mean() > 0.99


def test_maps_of_numbers_stay_as_they_are():
    class Maps(Listed):
        def __getitem__(self, index):
            sample: Sample = self.samples[index]
            return replace(sample, label=torch.where(sample.valid, -2.0 - index, torch.nan))

    data = splits()
    found = RegressionTask(()).statistics(CONFIG, replace(data, train=Maps(data.train.samples)))
    assert found.target == pytest.approx((-3.0, (2 / 3) ** 0.5))
    stats = measured(data)
    assert (found.mean, found.std, found.log_floor) == (stats.mean, stats.std, stats.log_floor)
    view = RegressionTask(()).view(CONFIG, data, found)
    assert view.mean == pytest.approx(np.exp(stats.mean))


def test_mean_and_deviation_are_of_what_percentiles_leave():
    stats = measured(splits(), PERCENTILE)
    pixels = np.concatenate([image(index)[2:].reshape(-1, 2) for index in range(3)]).astype(np.float64)
    low, high = np.percentile(pixels, PERCENTILES, axis=0)
    np.testing.assert_allclose(stats.scale.limits, np.stack([low, high], axis=1), rtol=1e-7)
    held = pixels.clip(low, high)
    np.testing.assert_allclose(stats.mean, held.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(stats.std, held.std(axis=0), rtol=1e-6)
    assert (stats.log_floor, sum(stats.class_pixels), stats.images) == (None, len(pixels), 3)
    swapped = splits()
    swapped = replace(swapped, train=Listed(swapped.train.samples[::-1]))
    assert measured(swapped, PERCENTILE).clip == stats.clip  # bit for bit, in any order


@pytest.mark.parametrize("outlier", [1e30, 3e38, np.inf, -np.inf, np.nan])
def test_an_outlier_moves_nothing(outlier):
    pixels = np.random.default_rng(0).normal(-12, 4, (64, 64, 1)).astype(np.float32)
    before = clip_of(pixels, pixels)
    odd = pixels.copy()
    odd[5, 5] = outlier
    stats = measured(made(pixels, odd), PERCENTILE)
    np.testing.assert_allclose(stats.scale.limits, [before], atol=0.05)
    np.testing.assert_allclose(stats.std, measured(made(pixels, pixels), PERCENTILE).std, rtol=0.01)
    known = 2 * 64 * 64 - (not np.isfinite(outlier))  # infinite values have no data
    assert sum(stats.class_pixels) == known


def test_integers_are_exact():
    pixels = np.random.default_rng(0).integers(0, 1 << 16, (50, 50, 1), np.uint16)
    assert clip_of(pixels[:20], pixels[20:]) == pytest.approx(np.percentile(pixels, PERCENTILES), rel=1e-7)
    assert clip_of(np.arange(101, dtype=np.uint8).reshape(1, -1, 1)) == PERCENTILES


def test_a_constant_channel():
    stats = measured(made(np.full((8, 8, 1), 0.1, np.float32)), PERCENTILE)
    assert stats.clip == ((pytest.approx(0.1),) * 2,)
    assert stats.std == (1.0,)
    assert not scaled(torch.tensor([[[-5.0, 0.1, 7.0]]]), stats.scale).sub(stats.mean[0]).abs().gt(1e-7).any()


def test_a_channel_of_mostly_one_value_keeps_its_range():
    pixels = np.zeros((20, 20, 1), np.float32)
    pixels[0, :2, 0] = 3, 8  # 0.5 %
    assert clip_of(pixels) == (0, 8)
    pixels[0, :19] = np.arange(19)[:, None]  # 4.5 %
    low, high = clip_of(pixels)
    assert low == 0 < high < 18


def test_values_that_a_manifest_cannot_hold_are_refused_by_name():
    pixels = np.random.default_rng(0).normal(size=(8, 8, 1)) * 1e33
    with pytest.raises(
        UserError, match=r"--data\.scale percentile: channel near has values beyond 1e\+30"
    ) as found:
        clip_of(pixels.astype(np.float32))
    assert "\n" not in str(found.value)


def test_no_valid_pixel():
    for config in (CONFIG, PERCENTILE):
        with pytest.raises(UserError, match="none of the 1 training images has a valid pixel"):
            measured(made(np.full((8, 8, 1), np.nan, np.float32)), config)
