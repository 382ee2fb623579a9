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

from coverslip.tiler.block import Block, Segment
from coverslip.tiler.budget import WorkShape, shape_work
from coverslip.tiler.codecs.base import FrameEncoder, Pixels
from coverslip.tiler.downsample import halve, replicate_edges
from coverslip.tiler.pyramid import Pyramid
from coverslip.tiler.reading import ReadableLevel

__all__ = ["FrameRun", "Workload", "encode_pyramid"]

BLOCK_PIXELS = 2048
"""Longest side of a block, where tiles are smaller than that."""


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
    memory_bytes : int, optional
        What frames and pixels may take; by default 64 MB, or as much as large tiles need at the least.
    block_pixels : int
        Longest side of a block, where tiles are smaller than that.
    missing_tiles : dict
        Filled in: stored tiles that the file does not hold, by level index of the pyramid.
    on_pixels : callable, optional
        Told the number of base-grid pixels finished, for a progress bar.
    """

    workers: int = 1
    memory_bytes: int | None = None
    block_pixels: int = BLOCK_PIXELS
    missing_tiles: dict[int, int] = field(default_factory=dict)
    on_pixels: Callable[[int], None] | None = None

    def account(self, level_index: int, block: Block) -> None:
        """Take note of a finished block of a level."""
        if block.missing_tiles:
            self.missing_tiles[level_index] = self.missing_tiles.get(level_index, 0) + block.missing_tiles
        if self.on_pixels is not None:
            grid = block.segment.grids[0]
            self.on_pixels(sum(map(len, block.frames[0])) * grid.rows * grid.columns)


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
    UsageError
        If the memory does not hold one block of a level.
    """
    segments = [(run, _plan_segment(stored_levels, pyramid, run, encoder)) for run in pyramid.segments()]
    shapes = [
        shape_work(segment, workload.workers, workload.memory_bytes, workload.block_pixels) for _, segment in segments
    ]
    for (run, planned), shape in zip(segments, shapes, strict=True):
        segment = planned._replace(block_tiles=shape.block_tiles)
        grid = segment.grids[0]
        for optical_path in range(grid.optical_paths):
            for focal_plane in range(grid.focal_planes):
                for level, frames in _encode_plane(segment, focal_plane, optical_path, shape, workload, run[0]):
                    yield FrameRun(run[level], frames)


def _plan_segment(
    stored_levels: Sequence[ReadableLevel], pyramid: Pyramid, run: Sequence[int], encoder: FrameEncoder
) -> Segment:
    """Return the segment of a run of levels, in blocks of one tile."""
    first = pyramid.levels[run[0]]
    source = stored_levels[first.stored_level_index or 0]
    reuse = first.reuses_frames
    grids = tuple(pyramid.levels[index].grid for index in run)
    lengths = source.expected_frame_lengths() if reuse else None
    frame_bytes = sum(lengths) // len(lengths) if lengths else 0
    # Half-scale decoding needs whole stored tiles: it serves a level whose frames are reused.
    return Segment(source, grids, encoder, reuse, pyramid.fast and reuse, 1, frame_bytes)


def _encode_plane(
    segment: Segment,
    focal_plane_index: int,
    optical_path_index: int,
    shape: WorkShape,
    workload: Workload,
    level_index: int,
) -> Iterator[tuple[int, list[bytes]]]:
    """Yield (level of the segment, a row of frames) of one plane, each level's rows from top to bottom."""
    tiles, grid = segment.block_tiles, segment.grids[0]
    columns = range(0, grid.tile_columns, tiles)
    upper = _UpperLevel(segment, segment.depth + 1) if segment.depth + 1 < len(segment.grids) else None

    def encode_block(corner: tuple[int, int]) -> Block:
        return Block(segment, *corner, focal_plane_index, optical_path_index).encode()

    corners = ((row, column) for row in range(0, grid.tile_rows, tiles) for column in columns)
    with closing(_in_order(encode_block, corners, shape)) as blocks:
        for block_row in range(-(-grid.tile_rows // tiles)):
            rows: list[list[list[bytes]]] = [[[] for _ in range(tiles >> level)] for level in range(segment.depth + 1)]
            for block_column, block in enumerate(islice(blocks, len(columns))):
                for level_rows, block_rows in zip(rows, block.frames, strict=True):
                    for frames, block_frames in zip(level_rows, block_rows, strict=True):
                        frames += block_frames
                if upper is not None and block.carry is not None:
                    upper.place(block.carry, block_row, block_column)
                workload.account(level_index, block)
            for level, level_rows in enumerate(rows):
                yield from ((level, frames) for frames in level_rows if frames)
            if upper is not None:
                yield from upper.finish_row(block_row)


class _UpperLevel:
    """A level above the blocks, built from a row of tiles at a time."""

    def __init__(self, segment: Segment, level: int) -> None:
        self._segment = segment
        self._level = level
        self._grid = segment.grids[level]
        source = segment.source
        # Two rows of what comes from below make one row of tiles here.
        width = self._grid.tile_columns * self._grid.columns
        self._pixels = np.empty((self._grid.rows, width, source.samples_per_pixel), source.dtype)
        self._above = _UpperLevel(segment, level + 1) if level + 1 < len(segment.grids) else None

    def place(self, half: Pixels, row: int, column: int) -> None:
        """Put a half-size tile from the level below at (row, column) of that level's tiles."""
        rows, columns = half.shape[:2]
        top, left = row % 2 * rows, column * columns
        self._pixels[top : top + rows, left : left + columns] = half

    def finish_row(self, row: int) -> Iterator[tuple[int, list[bytes]]]:
        """Take note that row `row` of the level below is complete; yield frames when that completes one here."""
        if row % 2 == 0 and row + 1 < self._segment.grids[self._level - 1].tile_rows:
            return
        grid, own_row = self._grid, row // 2
        valid_rows = grid.total_pixel_matrix_rows - own_row * grid.rows
        replicate_edges(self._pixels, valid_rows, grid.total_pixel_matrix_columns)
        encode = self._segment.encoder.encode
        lefts = range(0, self._pixels.shape[1], grid.columns)
        yield self._level, [encode(np.ascontiguousarray(self._pixels[:, left : left + grid.columns])) for left in lefts]
        if self._above is not None:
            self._above.place(halve(self._pixels), own_row, 0)
            yield from self._above.finish_row(own_row)


def _in_order[T, R](work: Callable[[T], R], items: Iterator[T], shape: WorkShape) -> Generator[R]:
    """Yield ``work(item)`` for every item in order, with as many at a time and in flight as `shape` says."""
    if shape.workers == 1:
        yield from map(work, items)
        return
    pending: deque[Future[R]] = deque()
    executor = ThreadPoolExecutor(shape.workers, thread_name_prefix="coverslip")
    try:
        for item in items:
            pending.append(executor.submit(work, item))
            if len(pending) >= shape.in_flight:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        # On an error or an interrupt nothing that has not begun is begun.
        executor.shutdown(cancel_futures=True)
