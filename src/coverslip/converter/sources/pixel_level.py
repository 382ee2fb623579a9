"""A level of which a library gives pixels only: 8-bit RGB, without stored frames."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from coverslip.converter.sources.base import PixelSpacing
from coverslip.converter.sources.tile_region import repeat_edges
from coverslip.tiler.codecs.base import FrameFormat, Pixels
from coverslip.tiler.grid import TileAddress, TileGrid

__all__ = ["PixelLevel"]

_TILE = (512, 512)


class PixelLevel(ABC):
    """A `SourceLevel` without stored frames; a subclass says how pixels are read.

    Parameters
    ----------
    size : tuple of int
        (rows, columns).
    level_index : int
    not_reusable : str
        Why there are no stored frames.
    compression : tuple
        Name, and Lossy Image Compression Method.
    stored_bytes : int
        Estimate.
    focal_planes : int
    """

    dtype: np.dtype[np.generic] = np.dtype(np.uint8)
    samples_per_pixel = 3
    frame_format: FrameFormat | None = None
    color = "RGB"
    decoding_unit = _TILE

    def __init__(
        self,
        size: tuple[int, int],
        level_index: int,
        *,
        not_reusable: str,
        compression: tuple[str, str | None],
        stored_bytes: int,
        focal_planes: int = 1,
    ) -> None:
        self.grid = TileGrid(*size, *_TILE, focal_planes)
        self.level_index = level_index
        self.not_reusable: str | None = not_reusable
        self.compression, self.lossy_method = compression
        self.stored_bytes = stored_bytes
        self.pixel_spacing: PixelSpacing | None = None

    @abstractmethod
    def _read(self, row: int, column: int, rows: int, columns: int, focal_plane_index: int) -> Pixels:
        """Return pixels of a rectangle that lies in the matrix, as (rows, columns, 3) uint8 RGB.

        Raises
        ------
        CorruptSourceError
            If they cannot be read.
        """

    def read_frame(self, address: TileAddress) -> bytes | None:
        """See `ReadableLevel`; there are no stored frames."""
        raise ValueError(f"no stored frame at {address}: {self.not_reusable}")

    def expected_frame_lengths(self) -> Sequence[int] | None:
        """See `ReadableLevel`; there are no stored frames."""
        return None

    def check_frame(self, frame: bytes, address: TileAddress) -> None:
        """See `ReadableLevel`; there are no stored frames."""
        self.decode_frame(frame, address)

    def decode_frame(self, frame: bytes, address: TileAddress) -> Pixels:
        """See `ReadableLevel`; there are no stored frames."""
        raise ValueError(f"no stored frame of {len(frame)} bytes at {address}: {self.not_reusable}")

    def decode_half_frame(self, frame: bytes, address: TileAddress) -> Pixels | None:
        """See `ReadableLevel`; there are no stored frames."""
        return self.decode_frame(frame, address)

    def blank_frame(self) -> bytes:
        """See `ReadableLevel`; there are no stored frames."""
        raise ValueError(f"no frame to be like: {self.not_reusable}")

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
        """See `ReadableLevel`; what the file holds no pixels for is background, and not counted."""
        valid_rows = min(rows, self.grid.total_pixel_matrix_rows - row)
        valid_columns = min(columns, self.grid.total_pixel_matrix_columns - column)
        if row < 0 or column < 0 or valid_rows < 1 or valid_columns < 1:
            raise ValueError(f"region of {rows} x {columns} at ({row}, {column}) holds no pixel of the matrix")
        pixels = np.empty((rows, columns, 3), np.uint8)
        pixels[:valid_rows, :valid_columns] = self._read(row, column, valid_rows, valid_columns, focal_plane_index)
        repeat_edges(pixels, valid_rows, valid_columns)
        return pixels, 0
