"""Ways in which a slide file is broken; each changes the file in place."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

import tifffile

__all__ = [
    "copy_slide",
    "corrupt_tile",
    "cut_tail",
    "garbage_mpp",
    "ifd_loop",
    "tile_past_the_end",
    "truncate",
    "truncate_half",
    "write_empty",
    "write_text",
    "zero_length_tile",
]

_TILE_OFFSETS, _TILE_BYTE_COUNTS = 324, 325


def copy_slide(slide: Path, target: Path) -> Path:
    """Copy a slide that is shared with others, so that the copy can be damaged."""
    shutil.copyfile(slide, target)
    return target


def truncate(path: Path, size: int) -> None:
    """Keep the first `size` bytes."""
    with path.open("r+b") as file:
        file.truncate(size)


def truncate_half(path: Path) -> None:
    """Keep the first half."""
    truncate(path, path.stat().st_size // 2)


def cut_tail(path: Path, size: int = 1000) -> None:
    """Drop the last `size` bytes."""
    truncate(path, path.stat().st_size - size)


def write_empty(path: Path) -> None:
    """Write a file of no bytes."""
    path.write_bytes(b"")


def write_text(path: Path) -> None:
    """Write prose."""
    path.write_text("This is not a slide.\n" * 30)


def ifd_loop(path: Path) -> None:
    """Let the last directory point back to the first."""
    with tifffile.TiffFile(path) as tiff:
        pages = tiff.pages
        first, last = pages[0].offset, pages[len(pages) - 1].offset
        big, order = tiff.is_bigtiff, tiff.byteorder
    with path.open("r+b") as file:
        file.seek(last)
        width = 8 if big else 2
        entries = int.from_bytes(file.read(width), _endian(order))
        file.seek(last + width + entries * (20 if big else 12))
        file.write(first.to_bytes(8 if big else 4, _endian(order)))


def tile_past_the_end(path: Path, *, page: int = 0, tile: int = 0) -> None:
    """Let a tile start ten bytes before the end of the file, so that it runs past it."""
    _set_element(path, page, _TILE_OFFSETS, tile, path.stat().st_size - 10)


def zero_length_tile(path: Path, *, page: int = 0, tile: int = 0) -> None:
    """Set the byte count of a tile to 0 and leave its offset."""
    _set_element(path, page, _TILE_BYTE_COUNTS, tile, 0)


def corrupt_tile(path: Path, *, page: int = 0, tile: int = 0) -> None:
    """Overwrite the middle half of a tile's bytes, so that it begins and ends well and does not decode."""
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages[page].dataoffsets[tile]
        byte_count = tiff.pages[page].databytecounts[tile]
    with path.open("r+b") as file:
        file.seek(offset + byte_count // 4)
        file.write((b"\xff\xd9\xde\xad\xff\x00\xbe\xef" * byte_count)[: byte_count // 2])


def garbage_mpp(path: Path, value: bytes = b"a.bcd") -> None:
    """Replace the text of every MPP field by `value`, which must be of equal or smaller length."""
    data = bytearray(path.read_bytes())
    start = data.find(b"MPP = ")
    while start >= 0:
        begin = start + len(b"MPP = ")
        end = begin
        while data[end] not in b"|\0":
            end += 1
        data[begin:end] = value.ljust(end - begin)[: end - begin]
        start = data.find(b"MPP = ", end)
    path.write_bytes(data)


def _set_element(path: Path, page: int, code: int, index: int, value: int) -> None:
    """Overwrite one element of an array tag."""
    with tifffile.TiffFile(path) as tiff:
        tag = tiff.pages[page].aspage().tags[code]
        width = tag.valuebytecount // tag.count
        offset, order = tag.valueoffset, tiff.byteorder
    with path.open("r+b") as file:
        file.seek(offset + index * width)
        file.write(value.to_bytes(width, _endian(order)))


def _endian(order: str) -> Literal["little", "big"]:
    return "little" if order == "<" else "big"
