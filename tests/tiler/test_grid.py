"""Order and edges of tiles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coverslip.tiler.grid import TileAddress, TileGrid

grids = st.builds(
    TileGrid,
    st.integers(1, 2000),
    st.integers(1, 2000),
    st.integers(1, 512),
    st.integers(1, 512),
    st.integers(1, 3),
    st.integers(1, 4),
)


def test_number_of_frames_rounds_edge_tiles_up():
    grid = TileGrid(513, 1024, 256, 256)
    assert (grid.tile_rows, grid.tile_columns, grid.number_of_frames) == (3, 4, 12)


def test_matrix_smaller_than_a_tile_is_one_frame():
    grid = TileGrid(1, 1, 512, 512)
    assert grid.number_of_frames == 1
    assert grid.valid_size(TileAddress(0, 0)) == (1, 1)


def test_frames_run_along_rows_then_down_then_through_focal_planes_then_optical_paths():
    grid = TileGrid(4, 4, 2, 2, focal_planes=2, optical_paths=2)
    first_plane = [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert list(grid.iter_addresses()) == [
        TileAddress(row, column, focal_plane, optical_path)
        for focal_plane, optical_path in ((0, 0), (1, 0), (0, 1), (1, 1))
        for row, column in first_plane
    ]


def test_edge_tiles_hold_what_is_left_of_the_matrix():
    grid = TileGrid(513, 700, 256, 300)
    assert grid.valid_size(TileAddress(0, 0)) == (256, 300)
    assert grid.valid_size(TileAddress(2, 0)) == (1, 300)
    assert grid.valid_size(TileAddress(0, 2)) == (256, 100)
    assert grid.valid_size(TileAddress(2, 2)) == (1, 100)


@given(grids, st.data())
def test_address_and_frame_index_are_inverse(grid: TileGrid, data: st.DataObject):
    index = data.draw(st.integers(0, grid.number_of_frames - 1))
    assert grid.frame_index(grid.address(index)) == index


@given(grids)
def test_valid_sizes_of_one_plane_cover_the_matrix_exactly(grid: TileGrid):
    heights = [grid.valid_size(TileAddress(row, 0))[0] for row in range(grid.tile_rows)]
    widths = [grid.valid_size(TileAddress(0, column))[1] for column in range(grid.tile_columns)]
    assert sum(heights) == grid.total_pixel_matrix_rows
    assert sum(widths) == grid.total_pixel_matrix_columns
    assert min(heights + widths) >= 1


@pytest.mark.parametrize(
    "name",
    ["total_pixel_matrix_rows", "total_pixel_matrix_columns", "rows", "columns", "focal_planes", "optical_paths"],
)
def test_size_below_one_is_a_mistake(name: str):
    sizes = {"total_pixel_matrix_rows": 1, "total_pixel_matrix_columns": 1, "rows": 1, "columns": 1, name: 0}
    with pytest.raises(ValueError, match=f"{name} is 0"):
        TileGrid(**sizes)
