"""One resolution of a tiled TIFF file: its stored tiles as DICOM frames, and its pixels."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from coverslip.converter.sources.base import PixelSpacing
from coverslip.converter.sources.stored_tiles import StoredTiles, open_stored_tiles
from coverslip.converter.sources.tiff_structure import TiffPage, TiffStructure
from coverslip.converter.sources.tile_region import read_tiled_region
from coverslip.errors import CorruptSourceError
from coverslip.tiler.codecs import encoder_like, make_decoder
from coverslip.tiler.codecs.base import FrameDecoder, FrameFormat, Pixels
from coverslip.tiler.grid import TileAddress, TileGrid
from coverslip.validators.report import Finding, Severity

__all__ = ["TiffLevel"]

_LARGEST_GAP = 4096
"""Bytes between two tiles that are worth reading over."""
_GRID_OF_STRIPS = (512, 512)
"""Rows and columns of the tiles in which an image in strips is best read."""


class TiffLevel:
    """A page of tiles (or strips) as a `SourceLevel`; thread safe.

    Parameters
    ----------
    structure : TiffStructure
        The open file; must outlive the level.
    page : TiffPage
    level_index : int
    background : tuple of int
        RGB of what a missing tile is read as.
    history : str, optional
        Lossy Image Compression Method of an earlier compression that the file tells of.
    size : tuple of int, optional
        (rows, columns) of the picture, where the page is larger: tiles that lie beyond it are left out.
    """

    def __init__(
        self,
        structure: TiffStructure,
        page: TiffPage,
        level_index: int,
        *,
        background: tuple[int, int, int],
        history: str | None = None,
        size: tuple[int, int] | None = None,
    ) -> None:
        self._structure = structure
        offsets, counts = page.segments()
        self._background = np.array(background, np.uint8)
        self._tile_heights_vary = not page.is_tiled
        rows, columns = size or (page.rows, page.columns)
        stored_grid = TileGrid(rows, columns, page.segment_rows, page.segment_columns)
        offsets, counts = (_inside(values, page, stored_grid) for values in (offsets, counts))
        self._stored_grid = stored_grid
        # Of pages whose colour planes are stored apart, all tiles of a plane come before those of the next.
        planes = offsets.size // stored_grid.number_of_frames
        self._plane_offsets = offsets.reshape(planes, stored_grid.number_of_frames)
        self._plane_counts = counts.reshape(planes, stored_grid.number_of_frames)
        self._offsets, self._counts = self._plane_offsets[0], self._plane_counts[0]
        self._tile_columns = stored_grid.tile_columns
        self.level_index = level_index
        self._tiles = self._open_tiles(page)
        self.pixel_spacing: PixelSpacing | None = None
        self.grid = stored_grid if page.is_tiled else TileGrid(rows, columns, *_GRID_OF_STRIPS)
        self.frame_format = self._tiles.frame_format
        self.lossy_method = self._tiles.lossy_method or history

    @property
    def decoding_unit(self) -> tuple[int, int]:
        """See `ReadableLevel`."""
        return self._stored_grid.rows, self._stored_grid.columns

    dtype: np.dtype[np.generic] = np.dtype(np.uint8)
    samples_per_pixel = 3

    @property
    def compression(self) -> str:
        """See `SourceLevel`."""
        return self._tiles.compression

    @property
    def color(self) -> str:
        """See `SourceLevel`."""
        return self._tiles.color

    @property
    def not_reusable(self) -> str | None:
        """See `SourceLevel`."""
        return self._tiles.not_reusable

    @cached_property
    def stored_bytes(self) -> int:
        """See `SourceLevel`."""
        return int(self._plane_counts.sum())

    @property
    def findings(self) -> list[Finding]:
        """Remarks about the tiles: missing ones and ones past the end of the file."""
        missing = np.flatnonzero(self._is_missing())
        beyond = np.flatnonzero(self._is_beyond() & ~self._is_missing())
        place = f"level {self.level_index}"
        total = self._stored_grid.number_of_frames
        findings = []
        if missing.size:
            message = f"{missing.size} of {total} tiles are not in the file and are written as background"
            findings.append(Finding("source.missing-tile", Severity.WARNING, message, place))
        if beyond.size:
            message = f"{beyond.size} of {total} tiles lie past the end of the file"
            where = f"{place}, frame {beyond.item(0)}"
            findings.append(Finding("source.truncated", Severity.ERROR, message, where))
        return findings

    def read_frame(self, address: TileAddress) -> bytes | None:
        """See `ReadableLevel`."""
        index = address[0] * self._tile_columns + address[1]
        data = self._read_stored(index)
        if data is None:
            return None
        try:
            return self._tiles.to_frame(data)
        except CorruptSourceError as error:
            raise self._corrupt(error, index) from error

    def read_frame_row(self, address: TileAddress, count: int) -> list[bytes | None]:
        """See `ReadsFrameRows`: tiles that lie behind one another in the file are read at once."""
        start = address[0] * self._tile_columns + address[1]
        offsets = self._offsets[start : start + count].tolist()
        counts = self._counts[start : start + count].tolist()
        ends = [offset + size for offset, size in zip(offsets, counts, strict=True)]
        gaps = [after - end for end, after in zip(ends, offsets[1:], strict=False)]
        near = all(0 <= gap <= _LARGEST_GAP for gap in gaps)
        if not (near and all(counts) and offsets[0] and ends[-1] <= self._structure.size):
            return [self.read_frame(address._replace(column_index=address[1] + index)) for index in range(count)]
        data = self._structure.read(offsets[0], ends[-1] - offsets[0])
        frames: list[bytes | None] = []
        for index, (offset, size) in enumerate(zip(offsets, counts, strict=True), start=start):
            at = offset - offsets[0]
            try:
                frames.append(self._tiles.to_frame(data[at : at + size]))
            except CorruptSourceError as error:
                raise self._corrupt(error, index) from error
        return frames

    def expected_frame_lengths(self) -> list[int]:
        """See `ReadableLevel`: most tiles get what the first one gets added."""
        # What a damaged file says may be more than the whole of it, and more than a signed number holds.
        counts = np.minimum(self._counts, np.uint64(self._structure.size))
        lengths: NDArray[np.int64] = counts.astype(np.int64) + self._tiles.added_bytes
        missing = self._is_missing()
        if missing.any():
            lengths[missing] = len(self._blank_frame)
        return list(map(int, lengths))

    def decode_frame(self, frame: bytes, address: TileAddress) -> Pixels:
        """See `ReadableLevel`."""
        try:
            return self._decoder.decode(frame)
        except CorruptSourceError as error:
            raise self._corrupt(error, self.grid.frame_index(address)) from error

    def decode_half_frame(self, frame: bytes, address: TileAddress) -> Pixels | None:
        """See `ReadableLevel`."""
        try:
            return self._decoder.decode_half(frame)
        except CorruptSourceError as error:
            raise self._corrupt(error, self.grid.frame_index(address)) from error

    def blank_frame(self) -> bytes:
        """See `ReadableLevel`."""
        return self._blank_frame

    @cached_property
    def _decoder(self) -> FrameDecoder:
        return make_decoder(self._reusable_format(), rows=self.grid.rows, columns=self.grid.columns)

    @cached_property
    def _blank_frame(self) -> bytes:
        encoder = encoder_like(self._reusable_format(), self._tiles.sample_frame)
        return encoder.encode(np.full((self.grid.rows, self.grid.columns, 3), self._background))

    def _reusable_format(self) -> FrameFormat:
        if self.frame_format is None:
            raise ValueError(f"level {self.level_index} has no stored frames: {self.not_reusable}")
        return self.frame_format

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
        """See `ReadableLevel`."""
        return read_tiled_region(self._stored_grid, (row, column), (rows, columns), self._background, self._read_tile)

    def _read_tile(self, address: TileAddress) -> Pixels | None:
        index = self._stored_grid.frame_index(address)
        grid, tiles = self._stored_grid, self._tiles
        rows = grid.valid_size(address)[0] if self._tile_heights_vary else grid.rows
        try:
            parts = []
            for plane in range(tiles.planes):
                data = self._read_stored(index, plane)
                if data is None:
                    return None
                parts.append(tiles.decode(data, rows))
            pixels = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
            return tiles.to_rgb(pixels) if tiles.to_rgb else pixels
        except CorruptSourceError as error:
            raise self._corrupt(error, index) from error

    def _read_stored(self, index: int, plane: int = 0) -> bytes | None:
        """Return the bytes of a tile as they are in the file, None if there are none."""
        size = self._plane_counts.item(plane, index)
        offset = self._plane_offsets.item(plane, index)
        if not (size and offset):
            return None
        try:
            return self._structure.read(offset, size)
        except CorruptSourceError as error:
            raise self._corrupt(error, index) from error

    def _is_missing(self) -> NDArray[np.bool_]:
        """Which tiles are not in the file: no offset or no bytes."""
        missing: NDArray[np.bool_] = ((self._plane_offsets == 0) | (self._plane_counts == 0)).any(axis=0)
        return missing

    def _is_beyond(self) -> NDArray[np.bool_]:
        """Which tiles run past the end of the file."""
        size, counts = self._structure.size, self._plane_counts
        beyond: NDArray[np.bool_] = (counts > size) | (self._plane_offsets > size - np.minimum(counts, size))
        whole: NDArray[np.bool_] = beyond.any(axis=0)
        return whole

    def _open_tiles(self, page: TiffPage) -> StoredTiles:
        """Find out what the tiles are from the first that the file holds whole."""
        whole = ~(self._is_missing() | self._is_beyond())
        index = int(whole.argmax())
        try:
            background = self._background.tolist()
            return open_stored_tiles(page, self._read_stored(index) if whole[index] else None, tuple(background))
        except CorruptSourceError as error:
            raise self._corrupt(error, index) from error

    def _corrupt(self, error: CorruptSourceError, index: int) -> CorruptSourceError:
        return CorruptSourceError(
            error.reason, level_index=self.level_index, frame_index=index, byte_offset=self._offsets.item(index)
        )


def _inside(values: NDArray[np.uint64], page: TiffPage, grid: TileGrid) -> NDArray[np.uint64]:
    """Return the values of those tiles of a page that hold pixels of a picture of `grid`."""
    whole = TileGrid(page.rows, page.columns, page.segment_rows, page.segment_columns)
    if (grid.tile_rows, grid.tile_columns) == (whole.tile_rows, whole.tile_columns):
        return values
    return values.reshape(-1, whole.tile_rows, whole.tile_columns)[:, : grid.tile_rows, : grid.tile_columns].ravel()
