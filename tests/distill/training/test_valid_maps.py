"""Which positions of a feature map count as valid."""

import numpy as np
import pytest
import torch

from deploy.errors import UserError
from distill.training.valid_maps import ValidMaps
from tests.distill.training.norms import patches, rng


class TestMaps:
    @pytest.mark.parametrize("size", [(16, 24), (8, 12), (4, 6), (6, 6), (3, 3), (1, 1), (7, 5), (20, 26)])
    def test_a_position_counts_where_its_cell_holds_a_valid_pixel(self, size):
        valid = torch.rand(3, 16, 24, generator=rng(0)) > 0.97
        maps = ValidMaps(valid).of(torch.zeros(3, 7, *size))
        for row, column in np.ndindex(size):
            rows, columns = (
                slice(i * n // cells, -(-(i + 1) * n // cells))
                for i, n, cells in ((row, 16, size[0]), (column, 24, size[1]))
            )
            assert torch.equal(maps[:, 0, row, column], valid[:, rows, columns].flatten(1).any(1).float())

    def test_an_image_with_one_valid_pixel_counts_on_every_map(self):
        valid = torch.zeros(2, 96, 96, dtype=torch.bool)
        valid[1, 50, 13] = True
        maps = ValidMaps(valid)
        for side in range(1, 97):
            of_map = maps.of(torch.zeros(2, 1, side, side))
            assert not of_map[0].any()
            assert of_map[1].any()
        assert maps.of(torch.zeros(2, 5)).tolist() == [[0], [1]]

    @pytest.mark.parametrize("shape", [(2, 3, 4, 4), (3, 3, 4), (3, 3, 4, 4, 4)])
    def test_a_norm_over_something_else_is_refused(self, shape):
        with pytest.raises(UserError, match=r"masked batch norm: a norm reads .* of 3 images"):
            ValidMaps(torch.ones(3, 8, 8, dtype=torch.bool)).of(torch.zeros(shape))

    def test_each_size_is_made_once(self):
        maps = ValidMaps(patches((2, 16, 16)))
        assert maps.of(torch.zeros(2, 3, 4, 4)) is maps.of(torch.zeros(2, 9, 4, 4))
