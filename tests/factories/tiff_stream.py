"""A TIFF writer that streams, checks nothing, and so can write any defect."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["ASCII", "LONG", "RATIONAL", "SHORT", "UNDEFINED", "WIDE", "Tag", "TiffStream"]

ASCII, SHORT, LONG, RATIONAL, UNDEFINED = 2, 3, 4, 5, 7
WIDE = 16  # LONG8 in BigTIFF, written as LONG in classic TIFF: for offsets and byte counts
_FORMATS = {SHORT: ("H", 2), LONG: ("I", 4), WIDE: ("Q", 8)}

type Tag = tuple[int, int, Sequence[int] | bytes]
"""Code, type and values; bytes for ASCII and UNDEFINED, numerator and denominator in turn for RATIONAL."""


class TiffStream:
    """Append data and image file directories (IFD) to a new TIFF file; use as a context manager.

    Parameters
    ----------
    path : Path
        Created or overwritten.
    byteorder : {"<", ">"}
        Little or big endian.
    bigtiff : bool
        64-bit offsets.
    """

    def __init__(self, path: Path, *, byteorder: str = "<", bigtiff: bool = False) -> None:
        self._order = byteorder
        self._big = bigtiff
        self._file = path.open("wb")
        magic = b"II" if byteorder == "<" else b"MM"
        self._link = 8 if bigtiff else 4  # where the offset of the next IFD goes
        self._file.write(magic + (self._pack("HHHQ", 43, 8, 0, 0) if bigtiff else self._pack("HI", 42, 0)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, data: bytes) -> int:
        """Append `data` at an even offset and return that offset."""
        offset = self._file.tell()
        if offset % 2:
            self._file.write(b"\0")
            offset += 1
        self._file.write(data)
        return offset

    def write_ifd(self, tags: Sequence[Tag], *, linked: bool = True) -> int:
        """Append an IFD, link the one before to it unless it is a SubIFD, and return its offset."""
        inline = 8 if self._big else 4
        entries = []
        for code, kind, values in sorted(tags, key=lambda tag: tag[0]):
            stored_kind = LONG if kind == WIDE and not self._big else kind
            data, count = self._encode(stored_kind, values)
            if len(data) > inline:
                data = self._pack("Q" if self._big else "I", self.write(data))
            entries.append(
                self._pack("HHQ" if self._big else "HHI", code, stored_kind, count) + data.ljust(inline, b"\0")
            )
        head = self._pack("Q" if self._big else "H", len(entries))
        offset = self.write(head + b"".join(entries) + bytes(inline))
        if linked:
            end = self._file.tell()
            self._file.seek(self._link)
            self._file.write(self._pack("Q" if self._big else "I", offset))
            self._file.seek(end)
            self._link = end - inline
        return offset

    def _encode(self, kind: int, values: Sequence[int] | bytes) -> tuple[bytes, int]:
        if isinstance(values, bytes):
            return values, len(values)
        if kind == RATIONAL:
            return self._pack("I" * len(values), *values), len(values) // 2
        return self._pack(_FORMATS[kind][0] * len(values), *values), len(values)

    def _pack(self, layout: str, *values: int) -> bytes:
        return struct.pack(self._order + layout, *values)
