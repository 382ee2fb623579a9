"""Where each frame of an instance lies, in TILED_FULL order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["TileAddress", "TileGrid"]


class TileAddress(NamedTuple):
    """One cell of a grid; every part is 0-based."""

    row_index: int
    column_index: int
    focal_plane_index: int = 0
    optical_path_index: int = 0


@dataclass(frozen=True, slots=True)
class TileGrid:
    """Where each frame lies in one Total Pixel Matrix; knows no pixels.

    Frames follow the implicit order of TILED_FULL (PS3.3 C.7.6.17.3): along a row of tiles, then
    down the rows, then through the focal planes, then through the optical paths.

    Parameters
    ----------
    total_pixel_matrix_rows, total_pixel_matrix_columns : int
        Size of the matrix in pixels, without the padding of edge tiles.
    rows, columns : int
        Size of every tile in pixels; edge tiles are stored full size.
    focal_planes, optical_paths : int
        How many planes of tiles there are.
    """

    total_pixel_matrix_rows: int
    total_pixel_matrix_columns: int
    rows: int
    columns: int
    focal_planes: int = 1
    optical_paths: int = 1

    def __post_init__(self) -> None:
        for name in (
            "total_pixel_matrix_rows",
            "total_pixel_matrix_columns",
            "rows",
            "columns",
            "focal_planes",
            "optical_paths",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")

    @property
    def tile_rows(self) -> int:
        """Number of tiles from top to bottom."""
        return -(-self.total_pixel_matrix_rows // self.rows)

    @property
    def tile_columns(self) -> int:
        """Number of tiles from left to right."""
        return -(-self.total_pixel_matrix_columns // self.columns)

    @property
    def number_of_frames(self) -> int:
        """Number of frames over all planes."""
        return self.tile_rows * self.tile_columns * self.focal_planes * self.optical_paths

    def frame_index(self, address: TileAddress) -> int:
        """Return the 0-based frame that holds `address`."""
        plane = address.optical_path_index * self.focal_planes + address.focal_plane_index
        return (plane * self.tile_rows + address.row_index) * self.tile_columns + address.column_index

    def address(self, frame_index: int) -> TileAddress:
        """Return the cell held by the 0-based frame `frame_index`."""
        rest, column = divmod(frame_index, self.tile_columns)
        plane, row = divmod(rest, self.tile_rows)
        optical_path, focal_plane = divmod(plane, self.focal_planes)
        return TileAddress(row, column, focal_plane, optical_path)

    def valid_size(self, address: TileAddress) -> tuple[int, int]:
        """Return (rows, columns) of the tile that lie inside the matrix."""
        return (
            min(self.rows, self.total_pixel_matrix_rows - address.row_index * self.rows),
            min(self.columns, self.total_pixel_matrix_columns - address.column_index * self.columns),
        )

    def iter_addresses(self) -> Iterator[TileAddress]:
        """Yield every cell in frame order."""
        return (self.address(index) for index in range(self.number_of_frames))
