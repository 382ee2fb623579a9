"""How large blocks are and how many are in flight, so that a pass keeps within its memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from coverslip.errors import UsageError
from coverslip.tiler.block import Segment
from coverslip.tiler.codecs.base import FrameFormat

__all__ = ["DEFAULT_MEMORY", "WorkShape", "shape_work"]

DEFAULT_MEMORY = 64 << 20
"""Budget where none is asked for and a pass needs no more."""

IN_FLIGHT = 4
"""Blocks begun or finished per worker before the first of them is taken, where memory allows."""


class WorkShape(NamedTuple):
    """How a segment is worked on; its frames do not depend on it.

    Parameters
    ----------
    block_tiles : int
        Side of a block in tiles of the stored level, a power of two.
    workers, in_flight : int
        Blocks that are worked on, and blocks that are worked on or wait for their turn.
    needed_bytes : int
        Estimated peak.
    """

    block_tiles: int
    workers: int
    in_flight: int
    needed_bytes: int


def shape_work(segment: Segment, workers: int, memory_bytes: int | None, block_pixels: int) -> WorkShape:
    """Return the shape with the most workers, then the largest blocks, then the most blocks in flight that fits.

    Parameters
    ----------
    segment : Segment
        Its `block_tiles` does not matter.
    workers : int
        Most of them.
    memory_bytes : int or None
        None: `DEFAULT_MEMORY`, or what is needed at the least.
    block_pixels : int
        Longest side of a block, where tiles are smaller than that.

    Raises
    ------
    UsageError
        If not even one worker has room.
    """
    least = min(shape.needed_bytes for shape in _shapes(segment, 1, block_pixels))
    # A quarter is kept for finished frames that wait to be written.
    wanted = least * 4 // 3 + 1
    budget = max(DEFAULT_MEMORY, wanted) if memory_bytes is None else memory_bytes
    for count in range(workers, 0, -1):
        for shape in _shapes(segment, count, block_pixels):
            if shape.needed_bytes <= budget * 3 // 4:
                return shape
    raise UsageError(
        f"--memory of {budget / (1 << 20):.3g}M does not hold one block of tiles of"
        f" {segment.grids[0].rows} x {segment.grids[0].columns}: wanted at least {(wanted >> 20) + 1}M"
    )


def _shapes(segment: Segment, workers: int, block_pixels: int) -> Iterator[WorkShape]:
    """Yield the shapes for a number of workers, the fastest first."""
    longest = max(segment.grids[0].rows, segment.grids[0].columns)
    usual = max(block_pixels // longest, 1).bit_length() - 1
    exponents = list(range(usual, -1, -1))
    if not segment.reads_blocks:
        # A deeper quad-tree takes a tile more, which is less than rows of large tiles above the blocks.
        exponents += range(usual + 1, len(segment.grids))
    fewest = workers + 1 if workers > 1 else 1
    most = IN_FLIGHT * workers if workers > 1 else 1
    for exponent in exponents:
        blocks = segment._replace(block_tiles=1 << exponent)
        for in_flight in range(most, fewest - 1, -1):
            needed = _needed_bytes(blocks, workers, in_flight)
            yield WorkShape(blocks.block_tiles, workers, in_flight, needed)


def _needed_bytes(segment: Segment, workers: int, in_flight: int) -> int:
    """Estimate the peak, of pixels exactly, of frames by how well such frames are known or expected to compress."""
    grid, side, depth = segment.grids[0], segment.block_tiles, segment.depth
    sample = segment.source.samples_per_pixel * segment.source.dtype.itemsize
    tile, unit = grid.rows * grid.columns * sample, math.prod(segment.source.decoding_unit) * sample
    derived = tile // _expected_compression(segment.encoder.frame_format)
    frame = segment.frame_bytes or derived
    # Of one tile of the stored level and its share, a third at most, of all that is derived from it.
    frames = frame + (derived // 3 if len(segment.grids) > 1 else 0)
    running = tile * (depth + 1) if len(segment.grids) > 1 or not segment.reuse else 0
    if not segment.reuse:
        running += unit + tile * side * side * segment.reads_blocks
    block = frames * side * side
    carried = tile // 4 if depth + 1 < len(segment.grids) else 0
    # A row of blocks leaves as rows of tiles, joined for writing one at a time.
    row = frames * grid.tile_columns * (side + 1)
    upper = sum(above.tile_columns * tile * 5 // 4 for above in segment.grids[depth + 1 :])
    return workers * (running + block) + (in_flight - workers) * (block + carried) + row + upper


def _expected_compression(frame_format: FrameFormat) -> int:
    if not frame_format.encapsulated:
        return 1
    return 8 if frame_format.lossy_method else 2
