"""Percentiles of channels in two passes against those of numpy."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from deploy.errors import UserError
from distill.data.percentiles import channel_percentiles
from distill.data.sample import Sample, make_sample
from tests.distill.data.listed import Listed

AT = (0.0, 1.7, 2.0, 50.0, 98.0, 100.0)


def reader(*images: np.ndarray) -> Listed:
    """Images C×H×W."""
    return Listed(
        [
            make_sample(one.transpose(1, 2, 0), np.zeros(one.shape[1:], np.uint8), id=str(i), num_classes=2)
            for i, one in enumerate(images)
        ]
    )


def check(images: list[np.ndarray]) -> None:
    found = channel_percentiles(reader(*images), AT)
    pixels = np.concatenate([one.reshape(len(one), -1) for one in images], axis=1).astype(np.float64)
    expected = np.percentile(pixels, AT, axis=1).T
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=0)


def draws() -> dict[str, np.ndarray]:
    """Numbers of many kinds, 4×1×300 each."""
    rng = np.random.default_rng(0)
    shape = (4, 1, 300)
    scales = 10.0 ** np.array([-30, -3, 0, 30])[:, None, None]
    return {
        "decibels": rng.normal(-12, 4, shape),
        "amplitudes": np.exp(rng.normal(0, 3, shape)) * scales,
        "both signs": rng.standard_cauchy(shape) * scales,
        "far from 0": 3e4 + rng.normal(0, 1, shape),
        "integers": rng.integers(-(1 << 15), 1 << 15, shape).astype(np.float64),
        "few values": rng.integers(0, 3, shape).astype(np.float64),
        "denormal": rng.normal(0, 1e-41, shape),
        "constant": np.full(shape, -0.1),
    }


@pytest.mark.parametrize("kind", draws())
def test_they_are_those_of_numpy(kind):
    numbers = draws()[kind].astype(np.float32)
    check([numbers[..., :100], numbers[..., 100:101], numbers[..., 101:]])
    check([numbers[..., :1]])
    check([numbers[..., :2]])


def test_zeros_of_both_signs_are_one_value():
    zeros = np.array([0.0, -0.0, -0.0, 0.0, 1e-45, -1e-45], np.float32).reshape(1, 1, -1)
    check([zeros])


def test_pixels_without_data_or_label_do_not_count():
    image = np.arange(200, dtype=np.float32).reshape(2, 10, 10)
    image[0, :2] = np.nan
    [sample] = reader(image).samples
    valid = sample.valid.clone()
    assert valid.sum() == 80
    valid[9] = False  # void
    found = channel_percentiles(Listed([replace(sample, valid=valid)]), (0.0, 100.0))
    assert found.tolist() == [[20.0, 89.0], [120.0, 189.0]]


def test_each_image_is_read_twice_and_none_is_kept():
    class Made:
        """Each image is made when it is read."""

        ids, read = (), 0

        def __len__(self) -> int:
            return 300

        def __getitem__(self, index: int) -> Sample:
            self.read += 1
            image = torch.full((1, 4, 4), float(index))
            label = torch.zeros(4, 4, dtype=torch.int64)
            return Sample(image, label, label == 0, str(index))

    made = Made()
    found = channel_percentiles(made, (10.0,))
    np.testing.assert_allclose(found, [[np.percentile(np.repeat(range(300), 16), 10)]])
    assert made.read == 600


def test_nothing_valid():
    with pytest.raises(UserError, match="none of the 2 training images has a valid pixel"):
        channel_percentiles(reader(*[np.full((1, 3, 3), np.nan, np.float32)] * 2), AT)
