"""One streaming pass over each stored level that yields the encoded frames of it and of all levels below it.

The unit of work is a block of 2**K x 2**K tiles: it is read, encoded and halved up to K times inside one task, so that
nothing but encoded frames and one half-size tile row leaves it. The coordinating thread puts frames in raster order,
block row by block row, and builds the levels above the blocks from whole rows. Memory is bounded by the width of the
slide: the encoded frames of one block row, the blocks in flight, and a row of tiles per upper level.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import numpy as np

from coverslip.errors import CorruptSourceError
from coverslip.tiler.codecs.base import FrameEncoder, Pixels
from coverslip.tiler.downsample import halve, replicate_edges
from coverslip.tiler.grid import TileAddress, TileGrid
from coverslip.tiler.pyramid import Pyramid
from coverslip.tiler.reading import ReadableLevel

__all__ = ["FrameRun", "Workload", "encode_pyramid"]

BLOCK_PIXELS = 2048
"""Longest side of a block, where tiles are smaller than that."""

IN_FLIGHT = 4
"""Blocks begun or finished per worker before the first of them is taken."""

EXPECTED_COMPRESSION = 8
"""Assumed ratio of decoded to encoded bytes when memory is planned; the row of a lossless slide is larger."""


class FrameRun(NamedTuple):
    """Consecutive frames of one level, as bytes of its transfer syntax."""

    level_index: int
    frames: list[bytes]


@dataclass(slots=True)
class Workload:
    """How the work is shared, and what was met on the way.

    Parameters
    ----------
    workers : int
        Threads that read, decode, halve and encode.
    memory_bytes : int
        What the encoded frames of a block row and the blocks in flight may take.
    missing_tiles : dict
        Filled in: stored tiles that the file does not hold, by level index of the pyramid.
    on_pixels : callable, optional
        Told the number of base-grid pixels finished, for a progress bar.
    """

    workers: int = 1
    memory_bytes: int = 64 << 20
    missing_tiles: dict[int, int] = field(default_factory=dict)
    on_pixels: Callable[[int], None] | None = None


def encode_pyramid(
    stored_levels: Sequence[ReadableLevel], pyramid: Pyramid, encoder: FrameEncoder, workload: Workload
) -> Generator[FrameRun]:
    """Yield the frames of every level, each level's in frame order.

    Parameters
    ----------
    stored_levels : sequence of ReadableLevel
        What the pyramid's `stored_level_index` refers to.
    pyramid : Pyramid
    encoder : FrameEncoder
        For all frames that are not reused.
    workload : Workload

    Raises
    ------
    CorruptSourceError
        If a stored tile cannot be read or decoded.
    EncodingError
        If the encoder refuses a frame.
    """
    for run in pyramid.segments():
        source = stored_levels[pyramid.levels[run[0]].stored_level_index or 0]
        segment = _Segment(source, pyramid, run, encoder, workload)
        grid = segment.grids[0]
        for optical_path in range(grid.optical_paths):
            for focal_plane in range(grid.focal_planes):
                yield from segment.encode_plane(focal_plane, optical_path)


class _BlockResult(NamedTuple):
    """Frames of one block by level and tile row, and its top level halved for the level above."""

    frames: list[list[list[bytes]]]
    carry: Pixels | None
    missing_tiles: int
    pixels: int


class _Segment:
    """One stored level and the levels derived from it."""

    def __init__(
        self,
        source: ReadableLevel,
        pyramid: Pyramid,
        level_indices: list[int],
        encoder: FrameEncoder,
        workload: Workload,
    ) -> None:
        self.source = source
        self.level_indices = level_indices
        self.grids: list[TileGrid] = [pyramid.levels[index].grid for index in level_indices]
        self.encoder = encoder
        self.workload = workload
        self.reuse = pyramid.levels[level_indices[0]].reuses_frames
        # Half-scale decoding needs whole stored tiles: it serves a level whose frames are reused.
        self.fast = pyramid.fast and self.reuse
        self.block_tiles = self._choose_block_tiles()
        # How many levels are derived inside a block.
        self.depth = min(self.block_tiles.bit_length() - 1, len(self.grids) - 1)

    def _choose_block_tiles(self) -> int:
        """Return the side of a block in tiles, a power of two.

        The frames do not depend on it: means are exact whatever the order of work.
        """
        grid = self.grids[0]
        row_bytes = grid.total_pixel_matrix_columns * grid.rows * self.source.samples_per_pixel
        row_bytes = row_bytes * self.source.dtype.itemsize // EXPECTED_COMPRESSION
        tiles = 1
        while max(grid.rows, grid.columns) * tiles * 2 <= BLOCK_PIXELS:
            if tiles >= 2 and row_bytes * tiles * 2 > self.workload.memory_bytes // 2:
                break
            tiles *= 2
        return tiles

    def encode_plane(self, focal_plane_index: int, optical_path_index: int) -> Iterator[FrameRun]:
        """Yield the frames of one plane of every level of the segment."""
        plane = focal_plane_index, optical_path_index
        tiles, grid = self.block_tiles, self.grids[0]
        block_columns = -(-grid.tile_columns // tiles)
        upper = None
        if self.depth + 1 < len(self.grids):
            upper = _UpperLevel(self, self.depth + 1)
        blocks = (
            (row, column)
            for row in range(0, grid.tile_rows, tiles)
            for column in range(0, block_columns * tiles, tiles)
        )
        with closing(
            _in_order(lambda block: self.encode_block(*block, plane), blocks, self.workload.workers)
        ) as results:
            for block_row in range(-(-grid.tile_rows // tiles)):
                rows: list[list[list[bytes]]] = [[[] for _ in range(tiles >> level)] for level in range(self.depth + 1)]
                for block_column, result in enumerate(islice(results, block_columns)):
                    for level, level_rows in enumerate(result.frames):
                        for row, frames in enumerate(level_rows):
                            rows[level][row] += frames
                    if upper is not None and result.carry is not None:
                        upper.place(result.carry, block_row, block_column)
                    self._account(result)
                for level, level_rows in enumerate(rows):
                    for frames in level_rows:
                        if frames:
                            yield FrameRun(self.level_indices[level], frames)
                if upper is not None:
                    yield from upper.finish_row(block_row)

    def _account(self, result: _BlockResult) -> None:
        index = self.level_indices[0]
        if result.missing_tiles:
            self.workload.missing_tiles[index] = self.workload.missing_tiles.get(index, 0) + result.missing_tiles
        if self.workload.on_pixels is not None:
            self.workload.on_pixels(result.pixels)

    def encode_block(self, tile_row: int, tile_column: int, plane: tuple[int, int]) -> _BlockResult:
        """Read one block, and encode it and the levels derived inside it. Runs in any thread.

        Parameters
        ----------
        tile_row, tile_column : int
            First tile of the block in the segment's largest grid.
        plane : tuple of int
            (focal plane, optical path) indices.
        """
        if self.reuse:
            base_frames, pixels, missing = self._reuse_block(tile_row, tile_column, plane)
            frames = [base_frames]
            level = 1
        else:
            pixels, missing = self._read_block(tile_row, tile_column, plane)
            frames = []
            level = 0
        while pixels is not None and level <= self.depth:
            grid = self.grids[level]
            row, column = tile_row >> level, tile_column >> level
            frames.append(self.encode_tiles(pixels, grid, row, column))
            if level + 1 == len(self.grids):
                pixels = None
                break
            pixels = halve(pixels)
            level += 1
            self._pad(pixels, level, tile_row, tile_column)
        tiles, grid = self.block_tiles, self.grids[0]
        seen = min(tiles, grid.tile_rows - tile_row) * min(tiles, grid.tile_columns - tile_column)
        return _BlockResult(frames, pixels, missing, seen * grid.rows * grid.columns)

    def _pad(self, pixels: Pixels, level: int, tile_row: int, tile_column: int) -> None:
        """Replicate the matrix's last row and column over the part of a block outside it."""
        grid = self.grids[level]
        # The block's corner at this level, in pixels: tile offsets are multiples of 2**level tiles.
        top, left = tile_row * grid.rows >> level, tile_column * grid.columns >> level
        replicate_edges(pixels, grid.total_pixel_matrix_rows - top, grid.total_pixel_matrix_columns - left)

    def encode_tiles(self, pixels: Pixels, grid: TileGrid, tile_row: int, tile_column: int) -> list[list[bytes]]:
        """Encode all tiles of a region that starts at a tile and lies inside the grid."""
        return [
            [
                self.encoder.encode(np.ascontiguousarray(pixels[top : top + grid.rows, left : left + grid.columns]))
                for left in range(0, pixels.shape[1], grid.columns)
                if tile_column + left // grid.columns < grid.tile_columns
            ]
            for top in range(0, pixels.shape[0], grid.rows)
            if tile_row + top // grid.rows < grid.tile_rows
        ]

    def _read_block(self, tile_row: int, tile_column: int, plane: tuple[int, int]) -> tuple[Pixels, int]:
        """Return the decoded pixels of a block."""
        tiles, grid = self.block_tiles, self.grids[0]
        return self.source.read_region(
            tile_row * grid.rows,
            tile_column * grid.columns,
            tiles * grid.rows,
            tiles * grid.columns,
            focal_plane_index=plane[0],
            optical_path_index=plane[1],
        )

    def _reuse_block(
        self, tile_row: int, tile_column: int, plane: tuple[int, int]
    ) -> tuple[list[list[bytes]], Pixels | None, int]:
        """Return the stored frames of a block, its pixels at half size, and how many tiles were missing.

        Each tile is halved as soon as it is decoded, so that the block never exists at full size.
        """
        source, grid, tiles = self.source, self.grids[0], self.block_tiles
        half = None
        if len(self.grids) > 1:
            # With depth 0 the half-size tile goes to the level above the blocks.
            shape = (tiles * grid.rows // 2, tiles * grid.columns // 2, source.samples_per_pixel)
            half = np.empty(shape, source.dtype)
        half_rows, half_columns = grid.rows // 2, grid.columns // 2
        missing = 0
        frames: list[list[bytes]] = []
        for row in range(min(tiles, grid.tile_rows - tile_row)):
            frames.append([])
            for column in range(min(tiles, grid.tile_columns - tile_column)):
                address = TileAddress(tile_row + row, tile_column + column, *plane)
                frame = source.read_frame(address)
                if frame is None:
                    frame = source.blank_frame()
                    missing += 1
                frames[-1].append(frame)
                if half is not None:
                    top, left = row * half_rows, column * half_columns
                    self._halve_frame(frame, address, half[top : top + half_rows, left : left + half_columns])
        if half is not None:
            self._pad(half, 1, tile_row, tile_column)
        return frames, half, missing

    def _halve_frame(self, frame: bytes, address: TileAddress, out: Pixels) -> None:
        """Decode a stored frame and write it at half size to `out`."""
        grid = self.grids[0]
        rows, columns = grid.valid_size(address)
        if self.fast and (rows, columns) == (grid.rows, grid.columns):
            pixels = self.source.decode_half_frame(frame, address)
            if pixels is not None:
                out[...] = pixels
                return
        pixels = self.source.decode_frame(frame, address)
        if pixels.shape[:2] != (grid.rows, grid.columns):
            raise CorruptSourceError(
                f"decoded to {pixels.shape[0]} x {pixels.shape[1]} pixels, expected {grid.rows} x {grid.columns}",
                frame_index=grid.frame_index(address),
            )
        if (rows, columns) != (grid.rows, grid.columns):
            replicate_edges(pixels, rows, columns)
        halve(pixels, out)


class _UpperLevel:
    """A level above the blocks, built from a row of tiles at a time."""

    def __init__(self, segment: _Segment, level: int) -> None:
        self.segment = segment
        self.level = level
        self.grid = segment.grids[level]
        source = segment.source
        # Two rows of what comes from below make one row of tiles here.
        self.pixels = np.empty(
            (self.grid.rows, self.grid.tile_columns * self.grid.columns, source.samples_per_pixel), source.dtype
        )
        self.above = _UpperLevel(segment, level + 1) if level + 1 < len(segment.grids) else None

    def place(self, half: Pixels, row: int, column: int) -> None:
        """Put a half-size tile from the level below at (row, column) of that level's tiles."""
        rows, columns = half.shape[:2]
        top, left = row % 2 * rows, column * columns
        self.pixels[top : top + rows, left : left + columns] = half

    def finish_row(self, row: int) -> Iterator[FrameRun]:
        """Take note that row `row` of the level below is complete; yield frames when that completes one here."""
        own_row = row // 2
        below = self.segment.grids[self.level - 1]
        if row % 2 == 0 and row + 1 < below.tile_rows:
            return
        grid = self.grid
        replicate_edges(
            self.pixels, grid.total_pixel_matrix_rows - own_row * grid.rows, grid.total_pixel_matrix_columns
        )
        (frames,) = self.segment.encode_tiles(self.pixels, grid, own_row, 0)
        yield FrameRun(self.segment.level_indices[self.level], frames)
        if self.above is not None:
            self.above.place(halve(self.pixels), own_row, 0)
            yield from self.above.finish_row(own_row)


def _in_order[T, R](work: Callable[[T], R], items: Iterator[T], workers: int) -> Generator[R]:
    """Yield ``work(item)`` for every item in order, `workers` at a time, with a bounded number in flight."""
    if workers == 1:
        yield from map(work, items)
        return
    pending: deque[Future[R]] = deque()
    executor = ThreadPoolExecutor(workers, thread_name_prefix="coverslip")
    try:
        for item in items:
            pending.append(executor.submit(work, item))
            if len(pending) >= IN_FLIGHT * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        # On an error or an interrupt nothing that has not begun is begun.
        executor.shutdown(cancel_futures=True)
