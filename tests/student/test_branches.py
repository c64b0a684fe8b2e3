"""A 3×3 and a 1×1 convolution with batch norms are one convolution at inference."""

import pytest
import torch

from student.branches import Branches
from tests.student.networks import unsettled


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(8, 8), (9, 12), (1, 1)])
def test_two_branches_are_one_convolution(stride, size):
    branches = unsettled(Branches(3, 5, stride))
    image = torch.randn(2, 3, *size, dtype=torch.float64)
    assert isinstance(branches, Branches)
    torch.testing.assert_close(branches.folded()(image), branches(image), rtol=0, atol=1e-12)
