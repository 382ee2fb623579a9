"""Some of a pyramid's focal planes, as a pyramid of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from coverslip.converter.sources.base import PixelSpacing, SourceLevel, SourcePyramid
from coverslip.errors import UsageError
from coverslip.tiler.codecs.base import FrameFormat, Pixels
from coverslip.tiler.grid import TileAddress, TileGrid

__all__ = ["select_focal_planes"]


def select_focal_planes(pyramid: SourcePyramid, choice: str) -> SourcePyramid:
    """Return a pyramid with the chosen focal planes.

    Parameters
    ----------
    pyramid : SourcePyramid
    choice : str
        ``all``, ``middle``, or the number of a plane, the lowest being 1.

    Raises
    ------
    UsageError
        If there is no such plane.
    """
    offsets = pyramid.focal_plane_offsets_um
    if choice == "all" or (len(offsets) == 1 and choice == "middle"):
        return pyramid
    index = (len(offsets) - 1) // 2 if choice == "middle" else int(choice) - 1
    if not 0 <= index < len(offsets):
        raise UsageError(f"--focal-planes {choice}: the slide has {len(offsets)}, wanted 1 to {len(offsets)}")
    levels = [_PlaneOfLevel(level, index) for level in pyramid.levels]
    return replace(pyramid, levels=levels, focal_plane_offsets_um=(offsets[index],))


@dataclass(frozen=True, slots=True)
class _PlaneOfLevel:
    """One focal plane of a `SourceLevel`, which is another."""

    level: SourceLevel
    plane: int

    @property
    def grid(self) -> TileGrid:
        return replace(self.level.grid, focal_planes=1)

    @property
    def decoding_unit(self) -> tuple[int, int]:
        return self.level.decoding_unit

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
        return self.level.stored_bytes // self.level.grid.focal_planes

    @property
    def not_reusable(self) -> str | None:
        return self.level.not_reusable

    @property
    def pixel_spacing(self) -> PixelSpacing | None:
        return self.level.pixel_spacing

    def read_frame(self, address: TileAddress) -> bytes | None:
        return self.level.read_frame(self._address(address))

    def expected_frame_lengths(self) -> Sequence[int] | None:
        lengths = self.level.expected_frame_lengths()
        if lengths is None:
            return None
        grid = self.level.grid
        return [lengths[grid.frame_index(self._address(address))] for address in self.grid.iter_addresses()]

    def check_frame(self, frame: bytes, address: TileAddress) -> None:
        self.level.check_frame(frame, self._address(address))

    def decode_frame(self, frame: bytes, address: TileAddress) -> Pixels:
        return self.level.decode_frame(frame, self._address(address))

    def decode_half_frame(self, frame: bytes, address: TileAddress) -> Pixels | None:
        return self.level.decode_half_frame(frame, self._address(address))

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
        return self.level.read_region(
            row, column, rows, columns, focal_plane_index=self.plane, optical_path_index=optical_path_index
        )

    def _address(self, address: TileAddress) -> TileAddress:
        return address._replace(focal_plane_index=self.plane)
