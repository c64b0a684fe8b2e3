"""Recommendations for channels whose values have long tails."""

from collections.abc import Iterator

import numpy as np

from distill.config import RunConfig
from distill.data.scaling import PERCENTILES
from distill.data.splits import Splits
from distill.inspect_data.advice import Advice
from distill.inspect_data.numbers import Summary
from distill.inspect_data.survey import SplitSurvey

SKEWNESS = 4.0
"""Of a channel, from which its values have a long tail on one side; that of an exponential distribution is 2."""
KURTOSIS = 30.0
"""The same for tails on any side; that of a normal distribution is 3, of an exponential one 9."""
AMPLITUDE_SKEWNESS = 2.0
"""Of amplitudes with a long tail, at least."""
AMPLITUDE_MIN = 0.5
"""Smallest value of such amplitudes at most, as a part of the mean: logarithms shorten no tail far from 0."""


def range_advice(train: SplitSurvey, may_scale: bool = True) -> Iterator[Advice]:
    """Channels whose values have a long tail, and a scale: of logarithms for amplitudes, else between percentiles.

    One scale is for all channels of a run, so each must suit logarithms.

    Args:
        train: the training split.
        may_scale: whether the other settings allow `--data.scale`.
    """
    summaries = {name: summary for name, summary in train.channels.items() if summary is not None}
    shapes = {
        name: (moment(summary, 3), moment(summary, 4)) for name, summary in summaries.items() if summary.std
    }
    tails = {
        name: (skewness, kurtosis)
        for name, (skewness, kurtosis) in shapes.items()
        if abs(skewness) > SKEWNESS or kurtosis > KURTOSIS
    }
    positive = all(one.min >= 0 and one.mean > 0 for one in summaries.values())
    amplitudes = positive and all(
        skewness >= AMPLITUDE_SKEWNESS and summaries[name].min <= AMPLITUDE_MIN * summaries[name].mean
        for name, (skewness, _) in tails.items()
    )
    fields, then = _remedy(amplitudes, may_scale)
    for name, (skewness, kurtosis) in tails.items():
        one = summaries[name]
        far = max(one.max - one.mean, one.mean - one.min) / one.std
        text = (
            f"channel {name!r} has a long tail (skewness {skewness:.0f}, kurtosis {kurtosis:.0f}, its farthest value"
            f" {far:.0f} deviations from the mean); {then}"
        )
        yield Advice("range", text, fields)
        fields = ()  # once in the command


def may_scale(config: RunConfig, splits: Splits) -> bool:
    """Whether `--data.scale` goes with the other settings."""
    return config.data.normalize == "set" and not config.ready_made and splits.task == "segmentation"


def moment(summary: Summary, order: int) -> float:
    """A standardized moment from the histogram: the third is the skewness, the fourth the kurtosis."""
    centers = summary.first + summary.width * (np.arange(len(summary.histogram)) + 0.5)
    counts = np.asarray(summary.histogram, np.float64)
    return float((counts * ((centers - summary.mean) / summary.std) ** order).sum() / counts.sum())


def _remedy(amplitudes: bool, may_scale: bool) -> tuple[tuple[str, ...], str]:
    """Fields, and what they do."""
    if not may_scale:
        return (), (
            "--data.scale does not go with other settings of this run: write logarithms or clipped values into the"
            " files, and feed the device the same"
        )
    if amplitudes:
        return ("--data.scale", "log"), "the network takes the logarithms, on the device, too"
    low, high = PERCENTILES
    return ("--data.scale", "percentile"), (
        f"the network takes pixels held between percentiles {low:g} and {high:g} of their channel, on the device, too"
    )
