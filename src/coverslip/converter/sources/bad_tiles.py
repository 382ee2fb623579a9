"""A pyramid of which every tile was decoded once, and those that do not decode are missing: ``--on-bad-tile blank``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import batched

import numpy as np

from coverslip.converter.sources.base import PixelSpacing, SourceLevel, SourcePyramid
from coverslip.converter.sources.tile_region import read_tiled_region
from coverslip.errors import CorruptSourceError, UnsupportedSourceError
from coverslip.tiler.codecs.base import FrameFormat, Pixels
from coverslip.tiler.grid import TileAddress, TileGrid

__all__ = ["bad_tile_words", "screen_pyramid"]

_BATCH = 64


def screen_pyramid(pyramid: SourcePyramid, background: tuple[int, int, int], workers: int) -> SourcePyramid:
    """Decode every tile of every level, and return the pyramid with those that cannot be read made missing.

    Parameters
    ----------
    pyramid : SourcePyramid
    background : tuple of int
        RGB of missing tiles that are not frames.
    workers : int
        Threads.

    Raises
    ------
    UnsupportedSourceError
        If nothing can be read any more after one damaged tile, as of a slide that OpenSlide reads.
    CorruptSourceError
        If a whole level is bad: there is nothing to be saved.
    """
    levels: list[SourceLevel] = []
    found: dict[int, tuple[int, ...]] = {}
    for level in pyramid.levels:
        bad = _bad_tiles(level, workers)
        if bad:
            found[level.level_index] = tuple(sorted(bad))
        levels.append(_ScreenedLevel(level, frozenset(bad), background) if bad else level)
    return replace(pyramid, levels=levels, bad_tiles=found) if found else pyramid


def _bad_tiles(level: SourceLevel, workers: int) -> dict[int, CorruptSourceError]:
    """Return what is wrong with each frame of a level that cannot be read."""
    bad: dict[int, CorruptSourceError] = {}
    count = level.grid.number_of_frames
    with ThreadPoolExecutor(workers) as executor:
        for batch in batched(range(count), _BATCH):
            problems = zip(batch, executor.map(_problem_of(level), batch), strict=True)
            bad |= {index: error for index, error in problems if error is not None}
    if len(bad) == count:
        raise next(iter(bad.values()))
    if bad:
        sound = next(index for index in range(count) if index not in bad)
        if _problem_of(level)(sound) is not None:
            raise UnsupportedSourceError(
                "--on-bad-tile blank is not possible: the library that reads the slide reads nothing after a bad tile"
            )
    return bad


def _problem_of(level: SourceLevel) -> Callable[[int], CorruptSourceError | None]:
    grid = level.grid

    def problem(index: int) -> CorruptSourceError | None:
        address = grid.address(index)
        try:
            if level.frame_format is None:
                _read_cell(level, address)
            else:
                frame = level.read_frame(address)
                if frame is not None:
                    level.decode_frame(frame, address)
        except CorruptSourceError as error:
            return error
        return None

    return problem


def _read_cell(level: SourceLevel, address: TileAddress) -> tuple[Pixels, int]:
    grid = level.grid
    return level.read_region(
        address.row_index * grid.rows,
        address.column_index * grid.columns,
        grid.rows,
        grid.columns,
        focal_plane_index=address.focal_plane_index,
        optical_path_index=address.optical_path_index,
    )


@dataclass(frozen=True, slots=True)
class _ScreenedLevel:
    """A `SourceLevel` that does not hold some frames of another."""

    level: SourceLevel
    bad: frozenset[int]
    background: tuple[int, int, int]

    @property
    def grid(self) -> TileGrid:
        return self.level.grid

    @property
    def decoding_unit(self) -> tuple[int, int]:
        return self.level.grid.rows, self.level.grid.columns

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return self.level.dtype

    @property
    def samples_per_pixel(self) -> int:
        return self.level.samples_per_pixel

    @property
    def frame_format(self) -> FrameFormat | None:
        return self.level.frame_format

    @property
    def level_index(self) -> int:
        return self.level.level_index

    @property
    def compression(self) -> str:
        return self.level.compression

    @property
    def color(self) -> str:
        return self.level.color

    @property
    def lossy_method(self) -> str | None:
        return self.level.lossy_method

    @property
    def stored_bytes(self) -> int:
        return self.level.stored_bytes

    @property
    def not_reusable(self) -> str | None:
        return self.level.not_reusable

    @property
    def pixel_spacing(self) -> PixelSpacing | None:
        return self.level.pixel_spacing

    def read_frame(self, address: TileAddress) -> bytes | None:
        return None if self.grid.frame_index(address) in self.bad else self.level.read_frame(address)

    def expected_frame_lengths(self) -> Sequence[int] | None:
        lengths = self.level.expected_frame_lengths()
        if lengths is None:
            return None
        blank = len(self.level.blank_frame())
        return [blank if index in self.bad else length for index, length in enumerate(lengths)]

    def check_frame(self, frame: bytes, address: TileAddress) -> None:
        self.level.check_frame(frame, address)

    def decode_frame(self, frame: bytes, address: TileAddress) -> Pixels:
        return self.level.decode_frame(frame, address)

    def decode_half_frame(self, frame: bytes, address: TileAddress) -> Pixels | None:
        return self.level.decode_half_frame(frame, address)

    def blank_frame(self) -> bytes:
        return self.level.blank_frame()

    def read_region(
        self,
        row: int,
        column: int,
        rows: int,
        columns: int,
        *,
        focal_plane_index: int = 0,
        optical_path_index: int = 0,
    ) -> tuple[Pixels, int]:
        missing = 0

        def read_tile(address: TileAddress) -> Pixels | None:
            nonlocal missing
            address = address._replace(focal_plane_index=focal_plane_index, optical_path_index=optical_path_index)
            if self.grid.frame_index(address) in self.bad:
                return None
            pixels, absent = _read_cell(self.level, address)
            missing += absent
            return pixels

        background = np.array(self.background, self.dtype)
        pixels, bad = read_tiled_region(self.grid, (row, column), (rows, columns), background, read_tile)
        return pixels, missing + bad


def bad_tile_words(bad_tiles: Mapping[int, tuple[int, ...]], level_index: int) -> str:
    """Return how many tiles of a level are bad, and which, for a message; empty for none."""
    bad = bad_tiles.get(level_index, ())
    if not bad:
        return ""
    shown = ", ".join(map(str, bad[:10])) + (" ..." if len(bad) > 10 else "")
    return f"{len(bad)} {'tile that does' if len(bad) == 1 else 'tiles that do'} not decode (frame {shown})"
