"""A stored level that is kept in memory, for tests of the tiler."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import numpy as np
import simplejpeg

from coverslip.errors import CorruptSourceError
from coverslip.tiler.codecs.base import FrameFormat, Pixels
from coverslip.tiler.grid import TileAddress, TileGrid

__all__ = ["ArrayLevel"]

BACKGROUND = 250


class ArrayLevel:
    """A `ReadableLevel` over one array for each plane, with what scanners leave in the padding of edge tiles.

    Parameters
    ----------
    planes : ndarray
        (optical paths, focal planes, rows, columns, samples).
    tile : int
    coding : {"native", "jpeg", "none"}
        How tiles are stored: as samples, as JPEG, or not as frames at all.
    missing : collection of TileAddress
        Tiles that are not there.
    corrupt : collection of TileAddress
        Tiles that do not decode.
    """

    def __init__(
        self,
        planes: Pixels,
        tile: int,
        *,
        coding: str = "native",
        missing: Collection[TileAddress] = (),
        corrupt: Collection[TileAddress] = (),
    ) -> None:
        optical_paths, focal_planes, rows, columns, samples = planes.shape
        self.planes = planes
        self.dtype = planes.dtype
        self.samples_per_pixel = samples
        self.grid = TileGrid(rows, columns, tile, tile, focal_planes, optical_paths)
        self.coding = coding
        self.missing = frozenset(missing)
        self.corrupt = frozenset(corrupt)
        color = "RGB" if samples == 3 else "MONOCHROME2"
        bits = self.dtype.itemsize * 8
        formats = {
            "native": FrameFormat("1.2.840.10008.1.2.1", color, samples, bits),
            "jpeg": FrameFormat("1.2.840.10008.1.2.4.50", color, samples, bits, "ISO_10918_1"),
            "none": None,
        }
        self.frame_format = formats[coding]

    @property
    def decoding_unit(self) -> tuple[int, int]:
        return self.grid.rows, self.grid.columns

    def expected_frame_lengths(self) -> None:
        """The lengths cannot be foreseen."""

    def stored_tile(self, address: TileAddress) -> Pixels:
        """Return a tile as the scanner stores it: garbage beyond the edge of the matrix."""
        grid = self.grid
        rows, columns = grid.valid_size(address)
        seed = 1 + grid.frame_index(address)
        tile = np.random.default_rng(seed).integers(0, 256, (grid.rows, grid.columns, self.samples_per_pixel))
        tile = tile.astype(self.dtype)
        top, left = address.row_index * grid.rows, address.column_index * grid.columns
        plane = self.planes[address.optical_path_index, address.focal_plane_index]
        tile[:rows, :columns] = plane[top : top + rows, left : left + columns]
        return tile

    def encode(self, pixels: Pixels) -> bytes:
        if self.coding == "native":
            return pixels.tobytes()
        gray = self.samples_per_pixel == 1
        return simplejpeg.encode_jpeg(pixels, 92, "GRAY" if gray else "RGB", "Gray" if gray else "444")

    def read_frame(self, address: TileAddress) -> bytes | None:
        if address in self.missing:
            return None
        data = self.encode(self.stored_tile(address))
        return data[: len(data) // 2] if address in self.corrupt else data

    def check_frame(self, frame: bytes, address: TileAddress) -> None:
        if address in self.corrupt:
            raise CorruptSourceError("breaks off", level_index=0, frame_index=self.grid.frame_index(address))

    def decode_frame(self, frame: bytes, address: TileAddress) -> Pixels:
        with self.named_corruption(address):
            if self.coding == "native":
                shape = (self.grid.rows, self.grid.columns, self.samples_per_pixel)
                return np.frombuffer(frame, self.dtype).reshape(shape).copy()
            return simplejpeg.decode_jpeg(frame, "GRAY" if self.samples_per_pixel == 1 else "RGB")

    def decode_half_frame(self, frame: bytes, address: TileAddress) -> Pixels | None:
        if self.coding == "native":
            return None
        with self.named_corruption(address):
            color = "GRAY" if self.samples_per_pixel == 1 else "RGB"
            return simplejpeg.decode_jpeg(
                frame, color, min_height=self.grid.rows // 2, min_width=self.grid.columns // 2, min_factor=2
            )

    @contextmanager
    def named_corruption(self, address: TileAddress) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            raise CorruptSourceError(str(error), level_index=0, frame_index=self.grid.frame_index(address)) from error

    def blank_tile(self) -> Pixels:
        return np.full((self.grid.rows, self.grid.columns, self.samples_per_pixel), BACKGROUND, self.dtype)

    def blank_frame(self) -> bytes:
        return self.encode(self.blank_tile())

    def decoded(self, optical_path_index: int, focal_plane_index: int) -> Pixels:
        """Return a whole plane as it decodes, tile by tile."""
        grid = self.grid
        size = grid.total_pixel_matrix_rows, grid.total_pixel_matrix_columns
        picture = np.empty((*size, self.samples_per_pixel), self.dtype)
        for row in range(grid.tile_rows):
            for column in range(grid.tile_columns):
                address = TileAddress(row, column, focal_plane_index, optical_path_index)
                rows, columns = grid.valid_size(address)
                if address in self.missing:
                    tile = self.decode_frame(self.blank_frame(), address) if self.frame_format else self.blank_tile()
                elif self.frame_format:
                    tile = self.decode_frame(self.read_frame(address) or b"", address)
                else:
                    tile = self.stored_tile(address)
                top, left = row * grid.rows, column * grid.columns
                picture[top : top + rows, left : left + columns] = tile[:rows, :columns]
        return picture

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
        grid = self.grid
        missing = 0
        bottom = min(grid.tile_rows, -(-(row + rows) // grid.rows))
        right = min(grid.tile_columns, -(-(column + columns) // grid.columns))
        for tile_row in range(row // grid.rows, bottom):
            for tile_column in range(column // grid.columns, right):
                address = TileAddress(tile_row, tile_column, focal_plane_index, optical_path_index)
                missing += address in self.missing
                if address in self.corrupt:
                    raise CorruptSourceError("does not decode", level_index=0, frame_index=grid.frame_index(address))
        picture = self.decoded(optical_path_index, focal_plane_index)[row : row + rows, column : column + columns]
        margin = ((0, rows - picture.shape[0]), (0, columns - picture.shape[1]), (0, 0))
        return np.ascontiguousarray(np.pad(picture, margin, mode="edge")), missing
