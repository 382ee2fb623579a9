"""The work on one block of tiles, all in one thread: read, encode, halve, down a quad-tree.

A tile is halved into its parent as soon as its pixels are there, and a parent is encoded as soon as it is full: what is
worked on is one tile per level, which stays in the processor's cache.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from coverslip.errors import CorruptSourceError
from coverslip.tiler.codecs.base import FrameEncoder, Pixels
from coverslip.tiler.downsample import halve, replicate_edges
from coverslip.tiler.grid import TileAddress, TileGrid
from coverslip.tiler.reading import ReadableLevel, read_frame_row

__all__ = ["Block", "Segment"]


class Segment(NamedTuple):
    """One stored level and the levels derived from it.

    Parameters
    ----------
    source : ReadableLevel
    grids : tuple of TileGrid
        Of the stored level, as it is written, and of each derived one; all have the same tile size.
    encoder : FrameEncoder
        For all frames that are not reused.
    reuse : bool
        Whether the stored level's frames are copied bit for bit; its grid is then that of the source.
    fast : bool
        Whether the first derived level comes from decoding at half scale, where the codec can.
    block_tiles : int
        Side of a block in tiles of the stored level, a power of two.
    frame_bytes : int
        Mean size of the stored level's frames, if they are copied and it is known; else 0.
    """

    source: ReadableLevel
    grids: tuple[TileGrid, ...]
    encoder: FrameEncoder
    reuse: bool
    fast: bool
    block_tiles: int
    frame_bytes: int = 0

    @property
    def reads_blocks(self) -> bool:
        """Whether the stored level is read block by block, since stored tiles or strips straddle what is written.

        Where none does, a region of one tile at a time costs no stored tile a second decoding, and stays in the cache.
        """
        (rows, columns), written = self.source.decoding_unit, self.grids[0]
        return not self.reuse and bool(written.rows % rows or written.columns % columns)

    @property
    def depth(self) -> int:
        """How many levels are derived inside a block."""
        return min(self.block_tiles.bit_length() - 1, len(self.grids) - 1)


class Block:
    """One block of a segment.

    Parameters
    ----------
    segment : Segment
    tile_row, tile_column : int
        First tile of the block in the stored level's grid.
    focal_plane_index, optical_path_index : int

    Attributes
    ----------
    frames : list
        By level of the segment, by row of tiles: the frames of that row inside the block.
    carry : ndarray or None
        The block's top level at half size, for the level above the blocks; None if there is none.
    missing_tiles : int
        Stored tiles that the file does not hold.
    """

    def __init__(
        self, segment: Segment, tile_row: int, tile_column: int, focal_plane_index: int, optical_path_index: int
    ) -> None:
        self.segment = segment
        self.missing_tiles = 0
        self.carry: Pixels | None = None
        self._corner = tile_row, tile_column
        self._plane = focal_plane_index, optical_path_index
        depth, tiles = segment.depth, segment.block_tiles
        self.frames: list[list[list[bytes]]] = [[[] for _ in range(tiles >> level)] for level in range(depth + 1)]
        grid, source = segment.grids[0], segment.source
        shape = grid.rows, grid.columns, source.samples_per_pixel
        self._tiles = [np.empty(shape, source.dtype) for _ in range(depth)]
        self._region: Pixels | None = None
        self._wants_pixels = len(segment.grids) > 1

    def encode(self) -> Block:
        """Do all the work and return the block itself."""
        segment, (tile_row, tile_column) = self.segment, self._corner
        depth = segment.depth
        grid = segment.grids[depth]
        side = segment.block_tiles >> depth
        if segment.reads_blocks:
            self._region = self._read_region(*self._corner, segment.block_tiles)
        if segment.reuse:
            self._copy_frames()
            if not self._wants_pixels:
                return self
        for row in range(tile_row >> depth, min((tile_row >> depth) + side, grid.tile_rows)):
            for column in range(tile_column >> depth, min((tile_column >> depth) + side, grid.tile_columns)):
                pixels = self._encode_tile(depth, row, column)
                if depth + 1 < len(segment.grids):
                    self.carry = halve(pixels)
        # Blocks wait for their turn to be written: with their frames, not with the pixels these were made from.
        self._region = None
        self._tiles.clear()
        return self

    def _read_region(self, tile_row: int, tile_column: int, tiles: int) -> Pixels:
        """Read a square of tiles of the grid that is written."""
        grid = self.segment.grids[0]
        pixels, missing_tiles = self.segment.source.read_region(
            tile_row * grid.rows,
            tile_column * grid.columns,
            tiles * grid.rows,
            tiles * grid.columns,
            focal_plane_index=self._plane[0],
            optical_path_index=self._plane[1],
        )
        self.missing_tiles += missing_tiles
        return pixels

    def _encode_tile(self, level: int, row: int, column: int) -> Pixels:
        """Encode a tile and all tiles that it derives from; return its pixels, valid until the next of its level."""
        if level == 0:
            return self._encode_base_tile(row, column)
        tile = self._tiles[level - 1]
        half_rows, half_columns = tile.shape[0] // 2, tile.shape[1] // 2
        below = self.segment.grids[level - 1]
        for i in range(min(2, below.tile_rows - 2 * row)):
            for j in range(min(2, below.tile_columns - 2 * column)):
                quadrant = tile[i * half_rows : (i + 1) * half_rows, j * half_columns : (j + 1) * half_columns]
                if level > 1 or not self._halve_fast(2 * row + i, 2 * column + j, quadrant):
                    halve(self._encode_tile(level - 1, 2 * row + i, 2 * column + j), quadrant)
        replicate_edges(tile, *self.segment.grids[level].valid_size(TileAddress(row, column)))
        self._add_frame(level, row, self.segment.encoder.encode(tile))
        return tile

    def _encode_base_tile(self, row: int, column: int) -> Pixels:
        """Decode a tile of the stored level that was copied, or encode one."""
        grid, source = self.segment.grids[0], self.segment.source
        if not self.segment.reuse:
            if self._region is None:
                pixels = self._read_region(row, column, 1)
            else:
                top, left = (row - self._corner[0]) * grid.rows, (column - self._corner[1]) * grid.columns
                pixels = np.ascontiguousarray(self._region[top : top + grid.rows, left : left + grid.columns])
            self._add_frame(0, row, self.segment.encoder.encode(pixels))
            return pixels
        address = TileAddress(row, column, *self._plane)
        pixels = source.decode_frame(self._copied(address), address)
        if pixels.shape[:2] != (grid.rows, grid.columns):
            raise CorruptSourceError(
                f"decoded to {pixels.shape[0]} x {pixels.shape[1]} pixels, expected {grid.rows} x {grid.columns}",
                frame_index=grid.frame_index(address),
            )
        replicate_edges(pixels, *grid.valid_size(address))
        return pixels

    def _halve_fast(self, row: int, column: int, out: Pixels) -> bool:
        """Decode a copied base frame at half scale into `out`, if that is wanted and can be done."""
        grid = self.segment.grids[0]
        address = TileAddress(row, column, *self._plane)
        if not self.segment.fast or grid.valid_size(address) != (grid.rows, grid.columns):
            return False
        pixels = self.segment.source.decode_half_frame(self._copied(address), address)
        if pixels is None:
            return False
        out[...] = pixels
        return True

    def _copy_frames(self) -> None:
        """Read the stored frames of the block, and make blank ones where the file holds none."""
        grid, source, (top, left) = self.segment.grids[0], self.segment.source, self._corner
        count = min(self.segment.block_tiles, grid.tile_columns - left)
        for row in range(top, min(top + self.segment.block_tiles, grid.tile_rows)):
            for frame in read_frame_row(source, TileAddress(row, left, *self._plane), count):
                if frame is None:
                    self.missing_tiles += 1
                self.frames[0][row - top].append(source.blank_frame() if frame is None else frame)

    def _copied(self, address: TileAddress) -> bytes:
        return self.frames[0][address.row_index - self._corner[0]][address.column_index - self._corner[1]]

    def _add_frame(self, level: int, row: int, frame: bytes) -> None:
        # Down the quad-tree the tiles of one row come from left to right.
        self.frames[level][row - (self._corner[0] >> level)].append(frame)
