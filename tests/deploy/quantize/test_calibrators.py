"""The calibrators compared with plain definitions on the raw data."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.quantize.calibrators import BINS, CALIBRATORS, LEVELS, Histogram, count


def histogram(values: np.ndarray) -> Histogram:
    """A histogram as `deploy.quantize.ranges.collect` counts it."""
    magnitudes = np.abs(values[values != 0]).astype(np.float32)
    largest = float(magnitudes.max(initial=0.0))
    counts = count(magnitudes, largest) if magnitudes.size else np.zeros(BINS, np.int64)
    return Histogram(counts, values.size - magnitudes.size, largest)


DATA = {
    "normal": lambda rng: rng.normal(0, 3, 50_000),
    "relu": lambda rng: np.maximum(rng.normal(0.2, 1, 50_000), 0),
    "heavy tail": lambda rng: rng.standard_t(2, 50_000),
    "outlier": lambda rng: np.append(rng.normal(0, 1, 50_000), 400.0),
    "uniform": lambda rng: rng.uniform(-1, 1, 50_000),
    "two lumps": lambda rng: np.append(rng.normal(0, 0.1, 40_000), rng.normal(7, 0.1, 10_000)),
}


@pytest.fixture(params=DATA, ids=str)
def values(request):
    return DATA[request.param](np.random.default_rng(0)).astype(np.float32)


def squared_error(values, limit):
    step = limit / LEVELS
    return np.mean((values - step * np.clip(np.round(values / step), -LEVELS, LEVELS)) ** 2)


def plain_entropy(counts):
    """The published algorithm, one range and one bin at a time, over the values that are not 0."""
    best, found = np.inf, 0
    for kept in range(128, BINS + 1):
        p = counts[:kept].astype(float)
        p[-1] += counts[kept:].sum()
        group = [128 * b // kept for b in range(kept)]
        mass, filled = np.zeros(128), np.zeros(128)
        for b in range(kept):
            mass[group[b]] += counts[b]
            filled[group[b]] += counts[b] > 0
        q = np.array([mass[g] / filled[g] if c else 0.0 for g, c in zip(group, counts, strict=False)])
        p, q = p / p.sum(), q / max(q.sum(), 1)
        if (q[p > 0] == 0).any():
            continue
        divergence = np.sum(p[p > 0] * np.log(p[p > 0] / q[p > 0]))
        if divergence <= best + 1e-12:
            best, found = min(best, divergence), kept
    return found


def test_counts_as_numpy_does(values):
    found = histogram(values)
    nonzero = np.abs(values[values != 0])
    expected, _ = np.histogram(nonzero, BINS, (0, found.max))
    assert found.counts.sum() == nonzero.size
    # A value on the border of two bins may fall to either side.
    assert np.abs(np.cumsum(found.counts) - np.cumsum(expected)).max() <= 3


def test_min_max_is_the_largest_magnitude(values):
    assert CALIBRATORS["min-max"](histogram(values)) == np.abs(values).max()


def test_percentile_is_that_of_all_values_to_within_a_bin(values):
    found = histogram(values)
    share_below = [np.mean(np.abs(values) <= found_range) for found_range in bin_around(found, "percentile")]
    assert share_below[0] <= 0.9999 <= share_below[1]


def bin_around(found, name):
    width = found.max / BINS
    return CALIBRATORS[name](found) - 1.01 * width, CALIBRATORS[name](found) + 1.01 * width


def test_mse_is_as_good_as_trying_every_range_on_the_raw_data(values):
    found = CALIBRATORS["mse"](histogram(values))
    candidates = np.abs(values).max() * np.arange(1, 201) / 200
    best = min(squared_error(values, limit) for limit in candidates)
    assert squared_error(values, found) <= 1.01 * best


def test_entropy_is_the_published_algorithm(values):
    found = histogram(values)
    width = found.max / BINS
    assert CALIBRATORS["entropy"](found) == pytest.approx(plain_entropy(found.counts) * width)


def test_clipping_calibrators_cut_off_a_long_tail():
    found = histogram(np.random.default_rng(0).lognormal(size=50_000))
    ranges = {name: calibrate(found) for name, calibrate in CALIBRATORS.items()}
    assert ranges["min-max"] == found.max
    assert all(ranges[name] < 0.8 * found.max for name in ("percentile", "entropy", "mse"))


@pytest.mark.parametrize("name", CALIBRATORS)
def test_zeros_weigh_nothing_but_in_the_percentile(name, values):
    padded = np.append(values, np.zeros(values.size))
    expected = CALIBRATORS[name](histogram(values))
    if name == "percentile":
        assert CALIBRATORS[name](histogram(padded)) <= expected
    else:
        assert CALIBRATORS[name](histogram(padded)) == expected


@pytest.mark.parametrize("name", CALIBRATORS)
@settings(max_examples=25)
@given(
    values=st.lists(st.floats(-1e4, 1e4, width=32), max_size=40),
    zeros=st.integers(0, 100_000),
)
def test_ranges_are_above_zero_and_not_above_the_maximum(name, values, zeros):
    found = histogram(np.append(np.array(values, np.float32), np.zeros(zeros, np.float32)))
    limit = CALIBRATORS[name](found)
    assert limit > 0
    if found.max > 0:
        assert limit <= found.max * (1 + 1e-6)


@pytest.mark.parametrize("name", CALIBRATORS)
def test_a_tensor_of_zeros_gets_a_harmless_range(name):
    assert CALIBRATORS[name](histogram(np.zeros(100, np.float32))) == 1.0


@pytest.mark.parametrize("name", CALIBRATORS)
def test_the_range_scales_with_the_data(name, values):
    once, twice = (CALIBRATORS[name](histogram(factor * values)) for factor in (1, 2))
    assert twice == pytest.approx(2 * once, rel=1e-3)
