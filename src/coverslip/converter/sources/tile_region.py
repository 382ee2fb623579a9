"""Put any rectangle of a level together from its tiles."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from coverslip.tiler.codecs.base import Pixels
from coverslip.tiler.grid import TileAddress, TileGrid

__all__ = ["read_tiled_region", "repeat_edges"]


def read_tiled_region(
    grid: TileGrid,
    corner: tuple[int, int],
    size: tuple[int, int],
    background: Pixels,
    read_tile: Callable[[TileAddress], Pixels | None],
) -> tuple[Pixels, int]:
    """Return decoded pixels of a rectangle of the first plane of `grid`.

    Parameters
    ----------
    grid : TileGrid
    corner, size : tuple of int
        (row, column) of the top left corner inside the matrix, and (rows, columns); what lies beyond the matrix
        repeats its last row and column.
    background : ndarray
        (samples,), of the type of the pixels: what a missing tile is read as.
    read_tile : callable
        Returns the decoded tile of an address, None if the file does not hold it.

    Returns
    -------
    pixels : ndarray
        (rows, columns, samples), owned by the caller.
    missing_tiles : int
    """
    row, column = corner
    rows, columns = size
    bottom = min(row + rows, grid.total_pixel_matrix_rows)
    right = min(column + columns, grid.total_pixel_matrix_columns)
    if not (0 <= row < bottom and 0 <= column < right):
        raise ValueError(f"region of {rows} x {columns} at ({row}, {column}) holds no pixel of the matrix")
    pixels = np.empty((rows, columns, background.size), background.dtype)
    missing_tiles = 0
    for tile_row in range(row // grid.rows, -(-bottom // grid.rows)):
        for tile_column in range(column // grid.columns, -(-right // grid.columns)):
            top, left = tile_row * grid.rows, tile_column * grid.columns
            first, last = max(row, top), min(bottom, top + grid.rows)
            start, stop = max(column, left), min(right, left + grid.columns)
            target = pixels[first - row : last - row, start - column : stop - column]
            tile = read_tile(TileAddress(tile_row, tile_column))
            if tile is None:
                missing_tiles += 1
                target[...] = background
            else:
                target[...] = tile[first - top : last - top, start - left : stop - left]
    repeat_edges(pixels, bottom - row, right - column)
    return pixels, missing_tiles


def repeat_edges(pixels: Pixels, rows: int, columns: int) -> None:
    """Fill `pixels` beyond its first `rows` and `columns` with the last of them, in place."""
    pixels[:rows, columns:] = pixels[:rows, columns - 1 : columns]
    pixels[rows:] = pixels[rows - 1 : rows]
