"""Read any rectangle of a level from its frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from coverslip.errors import CorruptSourceError

if TYPE_CHECKING:
    from coverslip.tiler.codecs.base import Pixels
    from coverslip.validators.decoded_frames import DecodedFrames
    from coverslip.validators.instance import InstanceView

__all__ = ["Mosaic"]


@dataclass(frozen=True, slots=True)
class Mosaic:
    """The frames of one plane of an instance by their places."""

    instance: InstanceView
    frames: dict[tuple[int, int], int]
    decoded: DecodedFrames

    @classmethod
    def of_planes(cls, instance: InstanceView, decoded: DecodedFrames) -> dict[tuple[str, float], Self]:
        """Return one for each optical path and focal plane.

        Raises
        ------
        CorruptSourceError
            If the header does not say where frames lie.
        """
        planes: dict[tuple[str, float], dict[tuple[int, int], int]] = {}
        for index, (row, column, path, depth) in enumerate(instance.frame_positions):
            planes.setdefault((path, depth), {})[row, column] = index
        return {plane: cls(instance, frames, decoded) for plane, frames in planes.items()}

    def region(self, top: int, left: int, bottom: int, right: int) -> Pixels | None:
        """Return pixels of the matrix, None if a frame is missing."""
        tile_rows, tile_columns = self.instance.tile_size
        pixels: Pixels | None = None
        for row in range(top // tile_rows * tile_rows, bottom, tile_rows):
            for column in range(left // tile_columns * tile_columns, right, tile_columns):
                index = self.frames.get((row, column))
                if index is None:
                    return None
                tile = self.decoded.get(self.instance, index)
                first, last = max(top, row), min(bottom, row + tile_rows)
                start, stop = max(left, column), min(right, column + tile_columns)
                part = tile[first - row : last - row, start - column : stop - column]
                if part.shape[:2] == (bottom - top, right - left):
                    return part
                if pixels is None:
                    pixels = np.zeros((bottom - top, right - left, tile.shape[2]), tile.dtype)
                pixels[first - top : last - top, start - left : stop - left] = part
        return pixels

    def region_beyond(self, row: int, column: int, rows: int, columns: int) -> Pixels:
        """Return pixels of a rectangle, the part outside the matrix repeating its last row and column.

        Raises
        ------
        CorruptSourceError
            If a frame is missing, or cannot be decoded.
        """
        bottom, right = (
            min(start + length, size)
            for start, length, size in zip((row, column), (rows, columns), self.instance.matrix_size, strict=True)
        )
        pixels = self.region(row, column, bottom, right)
        if pixels is None:
            raise CorruptSourceError("a frame is missing")
        beyond = rows - pixels.shape[0], columns - pixels.shape[1]
        return np.pad(pixels, ((0, beyond[0]), (0, beyond[1]), (0, 0)), "edge") if any(beyond) else pixels
