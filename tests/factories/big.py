"""Slides of some gigapixels in a minute or two, every tile different and every level a mean of the base.

Painting every pixel would take many minutes. So one field of tissue and one of glass are painted, and each block
of the slide shows another window of them, turned or mirrored and lighter or darker, cut to the outline of the
endless slide that `tissue` paints. Only the outline is evaluated where it passes.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import batched
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tests.factories.aperio import (
    FIELDS,
    AperioCoding,
    associated_pages,
    block_mean,
    cut_tiles,
    description,
    native_size,
    page_tags,
    thumbnail_page,
)
from tests.factories.generic import COMPRESSIONS, PIXELS_PER_CM, encode_plain
from tests.factories.tiff_stream import RATIONAL, SHORT, UNDEFINED, Tag, TiffStream
from tests.factories.tissue import outline, paint, tissue_mask

__all__ = ["write_big_svs", "write_big_tiff"]

TILE = 256
BLOCK = 2048  # a multiple of TILE at the base and at the first native level, which is a quarter of it
_FIRST, _SECOND = 4, 16  # the first native level is encoded with its block, all coarser ones from means of 16 x 16
_MASK_STEP = 16

Picture = NDArray[np.uint8]


class TileCoding(Protocol):
    """How tiles are compressed."""

    def encode(self, pixels: Picture) -> tuple[bytes, bytes]:
        """Return the JPEGTables, empty if there are none, and the tile."""

    def tags(self) -> list[Tag]:
        """Return the tags that state the compression."""


@dataclass(frozen=True, slots=True)
class PlainCoding:
    """Tiles of RGB compressed by "none", "lzw" or "deflate"."""

    compression: str

    def encode(self, pixels: Picture) -> tuple[bytes, bytes]:
        """Return no tables and the tile."""
        return b"", encode_plain(pixels, self.compression)

    def tags(self) -> list[Tag]:
        """Return the tags that state the compression."""
        return [(259, SHORT, (COMPRESSIONS[self.compression],)), (262, SHORT, (2,))]


@dataclass(frozen=True, slots=True)
class _Slide:
    """What a worker needs to make any block."""

    rows: int
    columns: int
    coding: TileCoding
    seed: int
    fields: Path


@dataclass(frozen=True, slots=True)
class _Block:
    """The tiles of a block by (row, column) within the block, and its mean of 16 x 16 pixels."""

    base: dict[tuple[int, int], bytes]
    first: dict[tuple[int, int], bytes]
    mean: Picture


def write_big_svs(
    path: Path,
    rows: int = 30_000,
    columns: int = 40_000,
    *,
    coding: AperioCoding | None = None,
    native_downsamples: Sequence[int] = (4, 16, 32),
    seed: int = 0,
    field_side: int = 4096,
    workers: int | None = None,
) -> None:
    """Write an Aperio SVS (BigTIFF above 2 Gpix) with tiles of 256 x 256 in raster order.

    Parameters
    ----------
    path : Path
        Created or overwritten.
    rows, columns : int
        Size of the base.
    coding : AperioCoding, optional
        JPEG YCbCr 4:2:0 of quality 75 unless given.
    native_downsamples : sequence of int
        4, then multiples of 16.
    field_side : int
        Of the painted fields, larger than 2048: the smaller, the sooner done and the less varied.
    workers : int, optional
        Processes; one per core unless given. The bytes do not depend on it.
    """
    coding = coding or AperioCoding("jpeg-ycbcr", 75, "420")

    def describe(size: tuple[int, int]) -> bytes:
        return description((rows, columns), size, (TILE, TILE), coding.label(), fields=FIELDS)

    def tags(size: tuple[int, int], offsets: list[int], byte_counts: list[int]) -> list[Tag]:
        return page_tags(size, describe(size), offsets, byte_counts, tile=(TILE, TILE))

    def thumbnail(stream: TiffStream, mean: Picture) -> None:
        small = block_mean(mean, max(1, math.ceil(max(mean.shape) / 1024)))
        thumbnail_page(stream, small, describe(small.shape[:2]))

    with (
        TiffStream(path, bigtiff=rows * columns > 2e9) as stream,
        _blocks(rows, columns, coding, seed, field_side, workers) as blocks,
    ):
        _write_levels(stream, (rows, columns), coding, blocks, native_downsamples, tags, thumbnail)
        associated_pages(stream)


def write_big_tiff(
    path: Path,
    rows: int = 12_000,
    columns: int = 16_000,
    *,
    compression: str = "deflate",
    native_downsamples: Sequence[int] = (4, 16),
    seed: int = 0,
    field_side: int = 4096,
    workers: int | None = None,
) -> None:
    """Write a generic tiled TIFF that is not JPEG; parameters as of `write_big_svs`."""
    coding = PlainCoding(compression)

    def tags(size: tuple[int, int], offsets: list[int], byte_counts: list[int]) -> list[Tag]:
        reduced = int(size != (rows, columns))
        resolution = (PIXELS_PER_CM[0], PIXELS_PER_CM[1] * round(columns / size[1]))
        return [
            *page_tags(size, b"\0", offsets, byte_counts, tile=(TILE, TILE), subfile_type=reduced),
            (282, RATIONAL, resolution),
            (283, RATIONAL, resolution),
            (296, SHORT, (3,)),
        ]

    with (
        TiffStream(path, bigtiff=rows * columns > 1e9) as stream,
        _blocks(rows, columns, coding, seed, field_side, workers) as blocks,
    ):
        _write_levels(stream, (rows, columns), coding, blocks, native_downsamples, tags, None)


def _write_levels(
    stream: TiffStream,
    size: tuple[int, int],
    coding: TileCoding,
    blocks: Iterable[_Block],
    downsamples: Sequence[int],
    tags: Callable[[tuple[int, int], list[int], list[int]], list[Tag]],
    thumbnail: Callable[[TiffStream, Picture], None] | None,
) -> None:
    tables, _ = coding.encode(np.zeros((TILE, TILE, 3), np.uint8))
    page: list[Tag] = [*coding.tags(), *([(347, UNDEFINED, tables)] if tables else [])]

    def write_level(level: tuple[int, int], tiles: Iterable[bytes]) -> None:
        places = [(stream.write(tile), len(tile)) for tile in tiles]
        stream.write_ifd([*tags(level, [offset for offset, _ in places], [count for _, count in places]), *page])

    first: list[bytes] = []
    means: list[Picture] = []
    write_level(size, _base_tiles(blocks, size, first, means))
    mean = np.concatenate(means)[: size[0] // _SECOND, : size[1] // _SECOND]
    if thumbnail:
        thumbnail(stream, mean)
    write_level(native_size(*size, _FIRST), first)
    for downsample in downsamples[1:]:
        level = block_mean(mean, downsample // _SECOND)
        encoded: list[bytes] = []
        cut_tiles(level, (TILE, TILE), lambda _row, _column, pixels: encoded.append(coding.encode(pixels)[1]))  # noqa: B023 - used up at once
        write_level(native_size(*size, downsample), encoded)


def _base_tiles(
    blocks: Iterable[_Block], size: tuple[int, int], first: list[bytes], means: list[Picture]
) -> Iterator[bytes]:
    """Yield base tiles in raster order; append to `first` and `means` what belongs to the coarser levels."""
    first_size = native_size(*size, _FIRST)
    for band_number, band in enumerate(batched(blocks, math.ceil(size[1] / BLOCK))):
        yield from _raster(band, "base", size, band_number * BLOCK)
        first.extend(_raster(band, "first", first_size, band_number * BLOCK // _FIRST))
        means.append(np.concatenate([block.mean for block in band], axis=1))


def _raster(band: Sequence[_Block], level: str, size: tuple[int, int], top: int) -> Iterator[bytes]:
    """Yield the tiles of a band of blocks row by row, less those outside the level."""
    across = BLOCK // TILE if level == "base" else BLOCK // TILE // _FIRST
    for row in range(min(across, math.ceil((size[0] - top) / TILE))):
        for column in range(math.ceil(size[1] / TILE)):
            yield getattr(band[column // across], level)[row, column % across]


class _blocks:  # noqa: N801 - used like a function
    """Give the blocks of a slide in raster order, made by a pool of processes."""

    def __init__(
        self, rows: int, columns: int, coding: TileCoding, seed: int, field_side: int, workers: int | None
    ) -> None:
        self._size = rows, columns
        self._seed, self._field_side = seed, field_side
        self._folder = tempfile.TemporaryDirectory(prefix="slide-fields-")
        self._slide = _Slide(rows, columns, coding, seed, Path(self._folder.name))
        self._pool = ProcessPoolExecutor(workers or os.cpu_count(), multiprocessing.get_context("spawn"))

    def __enter__(self) -> Iterator[_Block]:
        stripes = range(0, self._field_side, 128)
        for name, inside in (("tissue", 1.0), ("glass", 0.0)):
            painted = self._pool.map(partial(_paint_stripe, self._seed, self._field_side, inside), stripes)
            np.save(self._slide.fields / f"{name}.npy", np.concatenate(list(painted)))
        rows, columns = self._size
        places = [(row, column) for row in range(0, rows, BLOCK) for column in range(0, columns, BLOCK)]
        return self._pool.map(partial(_make_block, self._slide), places)

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._folder.cleanup()


def _paint_stripe(seed: int, side: int, inside: float, top: int) -> Picture:
    rows = min(128, side - top)
    return paint(np.arange(top, top + rows), np.arange(side), seed, np.full((rows, side), inside, np.float32))


def _make_block(slide: _Slide, place: tuple[int, int]) -> _Block:
    picture = _compose(slide, place)
    base: dict[tuple[int, int], bytes] = {}
    first: dict[tuple[int, int], bytes] = {}

    def into(tiles: dict[tuple[int, int], bytes], outside: tuple[int, int]) -> Callable[[int, int, Picture], None]:
        def encode(row: int, column: int, pixels: Picture) -> None:
            if row * TILE < outside[0] and column * TILE < outside[1]:
                tiles[row, column] = slide.coding.encode(pixels)[1]

        return encode

    left = slide.rows - place[0], slide.columns - place[1]
    cut_tiles(picture, (TILE, TILE), into(base, left))
    total = _sum_of_four(picture)
    cut_tiles(_mean(total, _FIRST), (TILE, TILE), into(first, (left[0] // _FIRST, left[1] // _FIRST)))
    total = _sum_of_four(total)
    return _Block(base, first, _mean(total, _SECOND))


def _compose(slide: _Slide, place: tuple[int, int]) -> Picture:
    """Return the pixels of the block at row and column `place` of the base."""
    chance = np.random.default_rng((slide.seed, *place))
    tissue_field, picture = (_window(slide.fields / name, chance) for name in ("tissue.npy", "glass.npy"))
    y, x = (np.arange(start, start + BLOCK) for start in place)
    coarse = tissue_mask(y[::_MASK_STEP], x[::_MASK_STEP], slide.seed)
    span = TILE // _MASK_STEP
    for row in range(0, BLOCK, TILE):
        for column in range(0, BLOCK, TILE):
            at = np.s_[row : row + TILE, column : column + TILE]
            here = coarse[row // _MASK_STEP :, column // _MASK_STEP :][:span, :span]
            if here.min() > 0.06:  # finer detail of the mask is smaller than this between two of its points
                picture[at] = tissue_field[at]
            elif here.max() > -0.06:
                inside = outline(tissue_mask(y[row : row + TILE], x[column : column + TILE], slide.seed))[..., None]
                picture[at] = np.rint(picture[at] * (1 - inside) + tissue_field[at] * inside).astype(np.uint8)
    darkness = (np.arange(255, -1, -1) * chance.uniform(0.88, 1.12)).round()
    tones = np.clip(255 - darkness, 0, 255).astype(np.uint8)
    return np.take(tones, picture)


def _window(path: Path, chance: np.random.Generator) -> Picture:
    """Return a block cut from a painted field at a random place, in one of its eight orientations."""
    field = np.load(path, mmap_mode="r")
    row, column = chance.integers(0, field.shape[0] - BLOCK, 2)
    window = field[row : row + BLOCK, column : column + BLOCK]
    if chance.integers(2):
        window = window.transpose(1, 0, 2)
    return np.array(np.rot90(window, chance.integers(4)), order="C")


def _sum_of_four(values: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Sum blocks of 4 x 4."""
    rows = values[0::4].astype(np.uint16)
    for offset in (1, 2, 3):
        rows += values[offset::4]
    total: NDArray[np.uint16] = rows[:, 0::4] + rows[:, 1::4]
    total += rows[:, 2::4]
    total += rows[:, 3::4]
    return total


def _mean(total: NDArray[np.uint16], downsample: int) -> Picture:
    """Divide a sum of downsample x downsample pixels, rounding half up."""
    count = downsample * downsample
    return ((total + np.uint16(count // 2)) // np.uint16(count)).astype(np.uint8)
