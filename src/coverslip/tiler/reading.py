"""What the tiler asks of a level it reads from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from coverslip.tiler.codecs.base import FrameFormat, Pixels
from coverslip.tiler.grid import TileAddress, TileGrid

__all__ = ["ReadableLevel", "ReadsFrameRows", "read_frame_row"]


class ReadableLevel(Protocol):
    """One resolution of one stored pyramid: stored frames and decoded pixels, in any order, from any thread."""

    @property
    def grid(self) -> TileGrid:
        """The grid of the stored tiles; for a level without tiles, the grid it is best read in."""
        ...

    @property
    def decoding_unit(self) -> tuple[int, int]:
        """(rows, columns) of what cannot be decoded but together: a stored tile, or a strip."""
        ...

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Type of a decoded sample: uint8, uint16 or float32."""
        ...

    @property
    def samples_per_pixel(self) -> int:
        """3 for colour, 1 for monochrome."""
        ...

    @property
    def frame_format(self) -> FrameFormat | None:
        """What the stored tiles are as DICOM frames; None if they cannot be reused bit for bit."""
        ...

    def read_frame(self, address: TileAddress) -> bytes | None:
        """Return the stored tile as a complete DICOM frame, None where the file holds no tile.

        Only for levels with a `frame_format`. A JPEG frame comes with its tables merged and its colour
        marked; the entropy-coded bytes are those of the file.

        Raises
        ------
        CorruptSourceError
            If the tile lies past the end of the file or does not start as its compression does.
        """
        ...

    def expected_frame_lengths(self) -> Sequence[int] | None:
        """Return the bytes that each frame will most probably have, in frame order, without reading any.

        Only for levels with a `frame_format`; None if there is no telling. A writer that is told right can hash its
        file while it writes it, and one that is told wrong loses nothing but that.
        """
        ...

    def decode_frame(self, frame: bytes, address: TileAddress) -> Pixels:
        """Decode what `read_frame` returned to (rows, columns, samples), a fresh or thread-local array.

        Raises
        ------
        CorruptSourceError
            If the frame does not decode without a warning; `address` names it.
        """
        ...

    def decode_half_frame(self, frame: bytes, address: TileAddress) -> Pixels | None:
        """Decode at half scale in the DCT domain to (rows / 2, columns / 2, samples); None if the codec cannot."""
        ...

    def blank_frame(self) -> bytes:
        """Return a frame of background, of the very format of the stored ones, for missing tiles."""
        ...

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
        """Return decoded pixels of any rectangle of the level.

        Parameters
        ----------
        row, column : int
            0-based top left corner in the Total Pixel Matrix.
        rows, columns : int
            Size; the part outside the matrix repeats the matrix's last row and column.

        Returns
        -------
        pixels : ndarray
            (rows, columns, samples), C-contiguous, writable, owned by the caller.
        missing_tiles : int
            Stored tiles in the rectangle that the file does not hold, read as background.

        Raises
        ------
        CorruptSourceError
            If a stored tile does not decode or lies past the end of the file.
        """
        ...


@runtime_checkable
class ReadsFrameRows(Protocol):
    """A level that reads neighbouring frames faster together than one by one."""

    def read_frame_row(self, address: TileAddress, count: int) -> list[bytes | None]:
        """Return what `ReadableLevel.read_frame` returns for `count` tiles of one row, the first at `address`."""
        ...


def read_frame_row(level: ReadableLevel, address: TileAddress, count: int) -> list[bytes | None]:
    """Return `count` stored frames of one row of tiles, the first at `address`; None for each that is missing."""
    if isinstance(level, ReadsFrameRows):
        return level.read_frame_row(address, count)
    columns = range(address.column_index, address.column_index + count)
    return [level.read_frame(address._replace(column_index=column)) for column in columns]
