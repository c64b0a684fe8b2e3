"""Long tails are found by their shape, and get the scale that suits all channels of the data."""

from dataclasses import replace

import numpy as np
import pytest

from deploy.bundle.manifest import ClassInfo
from distill.config import AugmentConfig, DataConfig, ModelConfig, RunConfig, TrainConfig
from distill.data.sample import make_sample
from distill.data.splits import Splits
from distill.inspect_data.advice import Advice
from distill.inspect_data.ranges import may_scale, moment, range_advice
from distill.inspect_data.recommend import command_of
from distill.inspect_data.survey import SplitSurvey, Survey
from tests.distill.inspect_data.test_command import Listed

TRAIN = TrainConfig(steps=2, batch_size=2)
CONFIG = RunConfig(
    DataConfig("folder", size=(64, 64)),
    ModelConfig("edge/4"),
    ModelConfig("edge/4"),
    TRAIN,
    TRAIN,
    AugmentConfig(),
)
RNG = np.random.default_rng(0)
NOISE = RNG.normal(0, 1, (64, 64, 1))
AMPLITUDES = np.exp(1.5 * NOISE)
WITH_OUTLIERS = np.where(RNG.uniform(size=NOISE.shape) < 0.01, 40 * NOISE, NOISE)


def surveyed(*channels: np.ndarray) -> tuple[Splits, SplitSurvey]:
    """Of one image of these channels, each H×W×1."""
    image = np.concatenate(channels, axis=2).astype(np.float32)
    samples = [make_sample(image, np.zeros((64, 64), np.uint8), id="a", num_classes=2)]
    names = tuple(ClassInfo(name, (0, 0, 0)) for name in ("land", "water"))
    splits = Splits(
        "made", names, tuple(f"band_{c}" for c in range(len(channels))), False, *[Listed(samples)] * 3
    )
    survey = Survey(splits)
    list(survey.rows())
    return splits, survey.splits[0]


def advised(*channels: np.ndarray, config: RunConfig = CONFIG) -> list[Advice]:
    splits, survey = surveyed(*channels)
    return list(range_advice(survey, may_scale(config, splits)))


def test_amplitudes_get_logarithms_once():
    first, second = advised(AMPLITUDES, 0.01 * AMPLITUDES)
    assert (first.fields, second.fields) == (("--data.scale", "log"), ())
    assert "channel 'band_0' has a long tail" in first.text
    assert first.text.endswith("the network takes the logarithms, on the device, too")
    assert advised(AMPLITUDES - AMPLITUDES.min())[0].fields == first.fields  # with zeros


@pytest.mark.parametrize(
    "channels",
    [
        (AMPLITUDES, NOISE),
        (AMPLITUDES - 1,),
        (300 - AMPLITUDES,),
        (WITH_OUTLIERS,),
        (300 + WITH_OUTLIERS,),
        (AMPLITUDES, 0 * NOISE),
        (np.where(np.arange(64 * 64).reshape(64, 64, 1) == 7, 1e30, NOISE),),
    ],
    ids=["beside noise", "below 0", "toward 0", "both sides", "positive", "nothing but 0", "outlier"],
)
def test_other_tails_get_percentiles(channels):
    first, *others = advised(*channels)
    assert first.fields == ("--data.scale", "percentile")
    assert first.text.endswith("held between percentiles 2 and 98 of their channel, on the device, too")
    assert not any(one.fields for one in others)
    words = command_of(["folder", "--data.scale", "linear"], [first])
    assert words == ["edgedistill", "run", "folder", "--data.scale", "percentile"]


@pytest.mark.parametrize(
    "channel",
    [
        -12 + 4 * NOISE,
        RNG.uniform(size=NOISE.shape),
        RNG.exponential(size=NOISE.shape),
        np.abs(NOISE),
        0 * NOISE,
    ],
    ids=["decibels", "uniform", "intensities of one look", "half normal", "constant"],
)
def test_usual_shapes_need_nothing(channel):
    assert advised(channel) == []


def test_other_settings_may_not_allow_it():
    config = replace(CONFIG, data=replace(CONFIG.data, normalize="image"))
    for channel in (AMPLITUDES, AMPLITUDES - 1):
        [found] = advised(channel, config=config)
        assert found.fields == ()
        assert "--data.scale does not go with other settings of this run" in found.text


def test_moments_are_nearly_those_of_the_pixels():
    _, survey = surveyed(AMPLITUDES)
    summary = survey.channels["band_0"]
    assert summary is not None
    flat = AMPLITUDES.astype(np.float32).ravel()
    for order in (3, 4):
        exact = float(np.mean(((flat - flat.mean()) / flat.std()) ** order))
        assert moment(summary, order) == pytest.approx(exact, rel=0.05)
