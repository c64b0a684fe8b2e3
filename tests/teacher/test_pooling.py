"""Pyramid pooling compared with torch, for every size a feature map may have."""

import pytest
import torch
from torch.nn import functional as F

from teacher.pooling import exact_adaptive_avg_pool, pooling_matrix
from teacher.pspnet import BINS


@pytest.mark.parametrize("bins", BINS)
def test_equals_adaptive_avg_pool_for_every_size(bins):
    torch.manual_seed(0)
    plane = torch.randn(1, 1, 97, 97)
    for height in range(6, 98):
        for width in range(6, 98):
            x = plane[..., :height, :width]
            difference = exact_adaptive_avg_pool(x, bins) - F.adaptive_avg_pool2d(x, bins)
            assert difference.abs().max() <= 1e-5, (height, width)


def test_matrix_rows_are_averages():
    for size in (1, 5, 6, 13, 97):
        for bins in BINS:
            matrix = torch.from_numpy(pooling_matrix(size, bins))
            torch.testing.assert_close(matrix.sum(1), torch.ones(bins))


def test_keeps_dtype_and_gradient():
    x = torch.randn(2, 3, 7, 11, dtype=torch.float64, requires_grad=True)
    assert exact_adaptive_avg_pool(x, 3).dtype == torch.float64
    assert torch.autograd.gradcheck(lambda t: exact_adaptive_avg_pool(t, 3), (x,))
