"""Upsampling in bands of rows is bilinear upsampling; of two classes the sign of one map decides."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from distill.export.enlarging import enlarged, row_bands
from distill.tasks.segmentation import argmax_head

SIZES = st.integers(1, 160)


@given(st.integers(1, 40), st.integers(1, 6), SIZES, st.integers(1, 20))
@settings(deadline=None, max_examples=60)
def test_equals_interpolate(cells, columns, height, width):
    maps = torch.from_numpy(np.random.default_rng(cells * height).normal(size=(2, 3, cells, columns))).float()
    expected = F.interpolate(maps, (height, width), mode="bilinear", align_corners=False)
    torch.testing.assert_close(enlarged(maps, (height, width)), expected, atol=1e-5, rtol=1e-5)


def test_bands_have_few_columns():
    starts, bands = row_bands(1080, 135)
    assert bands.shape[0] * bands.shape[1] == 1080
    assert len(starts) == bands.shape[0] > 10
    assert bands.shape[2] <= bands.shape[1] // 8 + 2
    torch.testing.assert_close(bands.sum(2), torch.ones(bands.shape[:2]))


def test_a_prime_height_has_one_band():
    starts, bands = row_bands(101, 13)
    assert (starts, bands.shape) == ([0], (1, 101, 13))


def test_equal_size_is_not_copied():
    maps = torch.zeros(1, 2, 3, 4)
    assert enlarged(maps, (3, 4)) is maps


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_argmax_head(classes):
    logits = torch.from_numpy(np.random.default_rng(classes).normal(size=(2, classes, 6, 5))).float()
    labels, scores = argmax_head(logits, lambda maps: enlarged(maps, (48, 40)))
    expected = F.interpolate(logits, (48, 40), mode="bilinear", align_corners=False).argmax(1)
    assert labels.dtype == torch.uint8
    assert torch.equal(labels.long(), expected)
    assert scores is logits


def test_ties_of_two_classes_are_the_first():
    labels, _ = argmax_head(torch.ones(1, 2, 3, 3), lambda maps: enlarged(maps, (6, 6)))
    assert not labels.any()
