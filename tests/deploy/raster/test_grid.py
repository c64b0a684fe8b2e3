"""The grid: blocks and pieces divide the raster, tiles cover it, weights are positive and smooth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.errors import UserError
from deploy.raster.grid import make_grid

sides = st.integers(1, 90)


@st.composite
def grids(draw):
    window = draw(st.tuples(st.integers(1, 24), st.integers(1, 24)))
    overlap = draw(st.none() | st.integers(0, min(window) - 1))
    return make_grid(draw(sides), draw(sides), window, overlap, draw(st.integers(1, 100)))


@given(grid=grids())
def test_pieces_divide_the_raster_and_tiles_cover_it(grid):
    seen, weight = np.zeros((2, grid.height, grid.width))
    for number, piece in enumerate(grid.pieces()):
        assert piece.index == number
        seen[piece.top : piece.bottom, piece.block.begin : piece.block.end] += 1
    assert (seen == 1).all()
    for block in grid.blocks:
        inside = slice(block.begin, block.end)
        part = np.zeros((grid.height + grid.window[0], grid.width + grid.window[1]))
        for row in grid.rows:
            for column in block.tiles:
                part[row : row + grid.window[0], column : column + grid.window[1]] += grid.weight(row, column)
        weight[:, inside] = part[: grid.height, inside]
    assert weight.min() > 0
    assert grid.tiles == len(grid.rows) * sum(len(block.tiles) for block in grid.blocks)


@given(grid=grids())
def test_first_row_of_tiles(grid):
    for top in grid.rows:
        touching = [i for i, row in enumerate(grid.rows) if row <= top < row + grid.window[0]]
        assert grid.first_row_of(top) == touching[0]


@given(grid=grids(), narrow=st.integers(1, 40))
def test_weights_do_not_depend_on_blocks(grid, narrow):
    """Each pixel gets the same tiles, however the raster is divided into blocks."""
    overlap = min(grid.overlap)
    other = make_grid(grid.height, grid.width, grid.window, overlap, narrow)
    same = make_grid(grid.height, grid.width, grid.window, overlap, 10**6)
    assert len(same.blocks) == 1
    for block in other.blocks:
        wanted = [x for x in same.blocks[0].tiles if x < block.end and x + grid.window[1] > block.begin]
        assert list(block.tiles) == wanted


def test_blocks_are_about_as_wide_as_allowed():
    grid = make_grid(100, 10_000, (64, 64), 16, 1000)
    assert len(grid.blocks) == 10
    assert all(900 <= block.width <= 1100 for block in grid.blocks)
    assert grid.tiles < 1.1 * make_grid(100, 10_000, (64, 64), 16, 10**6).tiles


def test_weight_falls_smoothly_to_almost_zero():
    grid = make_grid(500, 500, (64, 64), 32, 10**6)
    middle = grid.weight(32, 32)
    assert middle[32, 32] == 1
    assert middle[32, :8].max() <= 1e-6  # the outer quarter of the overlap
    assert np.abs(np.diff(middle[32])).max() < 0.11
    assert (grid.weight(0, 0)[:32, :32] == 1).all()  # nothing falls at the border of the raster


def test_neighbors_add_up_to_one():
    grid = make_grid(64, 160, (64, 64), 16, 10**6)
    total = np.zeros(160)
    for column in grid.blocks[0].tiles:
        total[column : column + 64] += grid.weight(0, column)[10]
    np.testing.assert_allclose(total, 1, atol=1e-5)


@pytest.mark.parametrize("overlap", [-1, 32, 1000])
def test_impossible_overlap_is_named(overlap):
    with pytest.raises(UserError, match=rf"overlap is {overlap} pixels, tiles are 32×48: give 0 to 31"):
        make_grid(100, 100, (32, 48), overlap, 1000)
