"""The directory of a CZI file: what tiles there are. Looked at before libraries are let in, which trust it blindly."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from coverslip.errors import CorruptSourceError

__all__ = ["CziTile", "check_tiles", "read_directory"]

_MOST_BYTES = 1 << 28
_LONGEST_TILE_SIDE = 1 << 16
_FARTHEST = 1 << 21
"""Pixels of a canvas, from its first to its last: more than a slide has at any resolution of a light microscope."""
_SEGMENT_BYTES = 32
_ENTRIES_AT = 128
_PIXEL_BYTES = {0: 1, 1: 2, 2: 4, 3: 3, 4: 6, 8: 12, 9: 4, 12: 4, 13: 8}


@dataclass(frozen=True, slots=True)
class CziTile:
    """One tile, as its entry in the directory says.

    Parameters
    ----------
    entry : bytes
        The entry itself, which the tile's own segment repeats.
    position : int
        Of that segment in the file.
    compression : int
    pixel_type : int
    is_reduced : bool
        Whether it is of a level above the base.
    stored : tuple of int
        (rows, columns) of its pixels.
    """

    entry: bytes
    position: int
    compression: int
    pixel_type: int
    is_reduced: bool
    stored: tuple[int, int]


def read_directory(path: Path) -> list[CziTile]:
    """Return all tiles of the file.

    Raises
    ------
    CorruptSourceError
        If there is no directory, or a tile is of a size or at a place that none has.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        position, metadata = struct.unpack_from("<qq", file.read(100).ljust(100, b"\0"), _SEGMENT_BYTES + 52)
        if not 0 < position < size:
            raise CorruptSourceError("a CZI file without a directory: it is cut off, or was not closed")
        _check_metadata(file, metadata, size)
        file.seek(position)
        segment = file.read(_SEGMENT_BYTES).ljust(_SEGMENT_BYTES, b"\0")
        if not segment.startswith(b"ZISRAWDIRECTORY\0"):
            raise CorruptSourceError("a CZI file without a directory: it is cut off", byte_offset=position)
        (used,) = struct.unpack_from("<q", segment, 24)
        data = file.read(min(max(0, used), _MOST_BYTES))
    (count,) = struct.unpack_from("<i", data.ljust(4, b"\0"))
    tiles: list[CziTile] = []
    at = _ENTRIES_AT
    for _ in range(count):
        if data[at : at + 2] != b"DV" or at + 32 > len(data):
            raise CorruptSourceError(f"a CZI directory of {len(tiles)} tiles, expected {count}", byte_offset=position)
        dimensions = struct.unpack_from("<i", data, at + 28)[0]
        end = at + 32 + 20 * dimensions
        if not 2 <= dimensions <= 40 or end > len(data):
            raise CorruptSourceError(f"a CZI tile of {dimensions} dimensions", byte_offset=position + at)
        tiles.append(_tile(data[at:end], size, position + _SEGMENT_BYTES + at))
        at = end
    if not tiles:
        raise CorruptSourceError("a CZI file without tiles", byte_offset=position)
    return tiles


def _check_metadata(file: BinaryIO, position: int, size: int) -> None:
    """Look whether the file's XML, where it has any, is whole."""
    if position <= 0:
        return
    segment = os.pread(file.fileno(), _SEGMENT_BYTES, position) if position < size else b""
    (used,) = struct.unpack_from("<q", segment.ljust(_SEGMENT_BYTES, b"\0"), 24)
    if not segment.startswith(b"ZISRAWMETADATA\0") or not 0 <= used <= size - position - _SEGMENT_BYTES:
        raise CorruptSourceError("a CZI file without its metadata: it is cut off", byte_offset=position)


def _tile(entry: bytes, file_bytes: int, place: int) -> CziTile:
    pixel_type, position, _part, compression, pyramid = struct.unpack_from("<iqiiB", entry, 2)
    lengths: dict[bytes, int] = {}
    for at in range(32, len(entry), 20):
        name, start, size, _coordinate, stored = struct.unpack_from("<4siifi", entry, at)
        lengths[name.rstrip(b"\0")] = stored or size
        if name.rstrip(b"\0") in (b"X", b"Y") and not (abs(start) <= _FARTHEST and 0 < size <= _FARTHEST):
            raise CorruptSourceError("a CZI tile at a place that no slide has", byte_offset=place)
    rows, columns = lengths.get(b"Y", 0), lengths.get(b"X", 0)
    if not (0 < rows <= _LONGEST_TILE_SIDE and 0 < columns <= _LONGEST_TILE_SIDE):
        raise CorruptSourceError(f"a CZI tile of {rows} x {columns} pixels", byte_offset=place)
    if not 0 < position <= file_bytes - _SEGMENT_BYTES:
        raise CorruptSourceError("a CZI tile that lies past the end of the file", byte_offset=place)
    return CziTile(entry, position, compression, pixel_type, bool(pyramid), (rows, columns))


def check_tiles(path: Path, tiles: list[CziTile]) -> None:
    """Look whether each tile is where and what the directory says, and its bytes are in the file.

    Raises
    ------
    CorruptSourceError
        If one is not: libraries then read past the end of memory.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        for number, tile in enumerate(tiles):
            head = os.pread(file.fileno(), _SEGMENT_BYTES + 16 + len(tile.entry), tile.position)
            problem = _problem(head, tile, size)
            if problem:
                message = f"tile {number} of the CZI directory {problem}"
                raise CorruptSourceError(message, byte_offset=tile.position)


def _problem(head: bytes, tile: CziTile, file_bytes: int) -> str | None:
    if len(head) < _SEGMENT_BYTES + 16 + len(tile.entry) or not head.startswith(b"ZISRAWSUBBLOCK\0"):
        return "is not where the directory says"
    if head[_SEGMENT_BYTES + 16 :] != tile.entry:
        return "says otherwise of itself than the directory"
    metadata, attachment, data = struct.unpack_from("<iiq", head, _SEGMENT_BYTES)
    start = tile.position + _SEGMENT_BYTES + max(256, 16 + len(tile.entry)) + metadata
    if metadata < 0 or attachment < 0 or data < 0 or start + data > file_bytes:
        return "runs past the end of the file"
    rows, columns = tile.stored
    wanted = rows * columns * _PIXEL_BYTES.get(tile.pixel_type, 0)
    if tile.compression == 0 and data < wanted:
        return f"has {data} bytes, expected {wanted}"
    return None
