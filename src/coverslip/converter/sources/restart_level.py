"""A level whose planes are huge JPEGs, cut into tiles at their restart markers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from coverslip.converter.sources.base import PixelSpacing
from coverslip.converter.sources.restart_jpeg import RestartJpeg, tile_intervals
from coverslip.converter.sources.tile_region import read_tiled_region
from coverslip.errors import CorruptSourceError, UnsupportedSourceError
from coverslip.tiler.codecs import encoder_like, make_decoder
from coverslip.tiler.codecs.base import FrameDecoder, FrameFormat, Pixels
from coverslip.tiler.codecs.jpeg_stream import JpegColor, dicom_format
from coverslip.tiler.grid import TileAddress, TileGrid

__all__ = ["RestartLevel"]


class RestartLevel:
    """A `SourceLevel` of JPEGs that can be cut, one for each focal plane; thread safe.

    Parameters
    ----------
    planes : sequence of RestartJpeg
        All of one size and cut alike.
    level_index : int
    stored_bytes : int
        Of all planes.
    color : {"rgb", "ycbcr"}
    background : tuple of int
    tile : tuple of int, optional
        (down, across): intervals of a tile; chosen without it.

    Raises
    ------
    UnsupportedSourceError
        If the planes differ, or the JPEG process is none of DICOM's.
    """

    dtype: np.dtype[np.generic] = np.dtype(np.uint8)
    samples_per_pixel = 3
    compression = "JPEG"
    lossy_method: str | None = "ISO_10918_1"

    def __init__(
        self,
        planes: Sequence[RestartJpeg],
        level_index: int,
        *,
        stored_bytes: int,
        color: JpegColor,
        background: tuple[int, int, int],
        tile: tuple[int, int] | None = None,
    ) -> None:
        first = planes[0]
        self._planes = planes
        self.level_index = level_index
        self.stored_bytes = stored_bytes
        self._background = np.array(background, np.uint8)
        self._tile = tile or tile_intervals(first.intervals)
        rows, columns = self._tile[0] * first.intervals.rows, self._tile[1] * first.intervals.columns
        self.grid = TileGrid(first.rows, first.columns, rows, columns, focal_planes=len(planes))
        found = dicom_format(first.jpeg_header, color)
        if isinstance(found, str):
            raise UnsupportedSourceError(f"level {level_index} holds {found}")
        if any(plane.jpeg_header != first.jpeg_header or plane.rows != first.rows for plane in planes):
            raise UnsupportedSourceError(f"focal planes of level {level_index} that are not stored alike")
        self._format = found
        self.not_reusable = first.intervals.reason
        self.frame_format: FrameFormat | None = None if self.not_reusable else found
        sampling = first.jpeg_header.sampling
        self.color = "RGB" if color == "rgb" else f"YCbCr {sampling}"
        self.pixel_spacing: PixelSpacing | None = None
        # Quantization tables may differ from plane to plane.
        self._headers = [plane.tile_header(rows, columns) for plane in planes]

    @property
    def decoding_unit(self) -> tuple[int, int]:
        """See `ReadableLevel`."""
        return self.grid.rows, self.grid.columns

    def read_frame(self, address: TileAddress) -> bytes | None:
        """See `ReadableLevel`."""
        self._require_frames()
        return self._cut(address)

    def _cut(self, address: TileAddress) -> bytes:
        plane = self._planes[address.focal_plane_index]
        row, column = address.row_index * self._tile[0], address.column_index * self._tile[1]
        try:
            return plane.cut(row, column, self._tile, self._headers[address.focal_plane_index])
        except CorruptSourceError as error:
            raise self._corrupt(error, address) from error

    def expected_frame_lengths(self) -> list[int] | None:
        """See `ReadableLevel`: told exactly, unless the file is damaged."""
        try:
            return [
                length
                for plane, header in zip(self._planes, self._headers, strict=True)
                for length in self._lengths(plane, len(header)).ravel().tolist()
            ]
        except CorruptSourceError:
            return None

    def _lengths(self, plane: RestartJpeg, header_bytes: int) -> NDArray[np.int64]:
        down, across = self._tile
        cells = np.diff(plane.bounds()).reshape(plane.intervals.down, plane.intervals.across)
        beyond = (-cells.shape[0] % down, -cells.shape[1] % across)
        cells = np.pad(cells, ((0, beyond[0]), (0, beyond[1])), mode="edge")
        tiles = cells.reshape(cells.shape[0] // down, down, cells.shape[1] // across, across)
        lengths: NDArray[np.int64] = tiles.sum(axis=(1, 3)) + header_bytes
        return lengths

    def check_frame(self, frame: bytes, address: TileAddress) -> None:
        """See `ReadableLevel`: a frame was cut by its markers, so they are there."""
        self._require_frames()

    def decode_frame(self, frame: bytes, address: TileAddress) -> Pixels:
        """See `ReadableLevel`."""
        self._require_frames()
        return self._decode(frame, address)

    def _decode(self, frame: bytes, address: TileAddress) -> Pixels:
        try:
            return self._decoder.decode(frame)
        except CorruptSourceError as error:
            raise self._corrupt(error, address) from error

    def _require_frames(self) -> None:
        if self.frame_format is None:
            raise ValueError(f"level {self.level_index} has no stored frames: {self.not_reusable}")

    def decode_half_frame(self, frame: bytes, address: TileAddress) -> Pixels | None:
        """See `ReadableLevel`."""
        try:
            return self._decoder.decode_half(frame)
        except CorruptSourceError as error:
            raise self._corrupt(error, address) from error

    def blank_frame(self) -> bytes:
        """See `ReadableLevel`."""
        self._require_frames()
        return self._blank_frame

    @cached_property
    def _blank_frame(self) -> bytes:
        encoder = encoder_like(self._format, self._headers[0])
        return encoder.encode(np.full((self.grid.rows, self.grid.columns, 3), self._background))

    @cached_property
    def _decoder(self) -> FrameDecoder:
        return make_decoder(self._format, rows=self.grid.rows, columns=self.grid.columns)

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

        def read_tile(address: TileAddress) -> Pixels | None:
            address = address._replace(focal_plane_index=focal_plane_index)
            return self._decode(self._cut(address), address)

        return read_tiled_region(self.grid, (row, column), (rows, columns), self._background, read_tile)

    def _corrupt(self, error: CorruptSourceError, address: TileAddress) -> CorruptSourceError:
        plane = self._planes[address.focal_plane_index]
        first = address.row_index * self._tile[0] * plane.intervals.across + address.column_index * self._tile[1]
        return CorruptSourceError(
            error.reason,
            level_index=self.level_index,
            frame_index=self.grid.frame_index(address),
            byte_offset=error.byte_offset or plane.offset_of(first),
        )
