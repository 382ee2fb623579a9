"""The bytes of one instance, taken from a file or store as far as they are needed."""

from __future__ import annotations

import zlib
from typing import Protocol

from coverslip.errors import CorruptSourceError

__all__ = ["FIRST_READ", "ByteSource", "ByteWindow", "InflatedBytes"]

FIRST_READ = 32 * 1024
"""Most headers are shorter; what is read at a time doubles up to `_MOST_READ`."""

_MOST_READ = 1024 * 1024


class ByteSource(Protocol):
    """Where the bytes of one instance come from."""

    @property
    def size_bytes(self) -> int | None:
        """Size of the file if it is known."""
        ...

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Return bytes, fewer at the end of the file."""
        ...


class ByteWindow:
    """The bytes around the place where a source is read."""

    __slots__ = ("_base", "_buf", "_next_read", "_pos", "source")

    def __init__(self, source: ByteSource) -> None:
        self.source = source
        self._base = 0
        self._pos = 0
        self._buf = b""
        self._next_read = FIRST_READ

    @property
    def offset(self) -> int:
        """Where the next byte comes from."""
        return self._base + self._pos

    def peek(self, length: int) -> bytes:
        """Return bytes without passing them, fewer at the end of the file."""
        if self._pos + length > len(self._buf):
            self._fill(length)
        return self._buf[self._pos : self._pos + length]

    def _fill(self, length: int) -> None:
        start = self.offset
        at_hand = self._buf[self._pos :]
        wanted = max(self._next_read, length) - len(at_hand)
        self._buf = at_hand + self.source.read(start + len(at_hand), wanted)
        self._base, self._pos = start, 0
        self._next_read = min(self._next_read * 2, _MOST_READ)

    def skip(self, length: int) -> None:
        """Pass bytes, without reading those that are not at hand."""
        if self._pos + length <= len(self._buf):
            self._pos += length
        else:
            self._base, self._pos, self._buf = self.offset + length, 0, b""

    def take(self, length: int) -> bytes:
        """Return bytes and pass them.

        Raises
        ------
        CorruptSourceError
            If the file ends before.
        """
        found = self.peek(length)
        if len(found) < length:
            raise CorruptSourceError(f"ends {length - len(found)} bytes early", byte_offset=self.offset)
        self._pos += length
        return found

    def require(self, length: int) -> None:
        """Make sure, where the size is known, that the file goes on for so many bytes."""
        size = self.source.size_bytes
        if size is not None and self.offset + length > size:
            raise CorruptSourceError(f"ends {self.offset + length - size} bytes early", byte_offset=self.offset)


class InflatedBytes:
    """The inflated rest of a deflated data set, from where a window stands on; read forwards."""

    size_bytes = None

    def __init__(self, window: ByteWindow) -> None:
        self._window = window
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._start = 0
        self._buf = b""

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Return bytes of the inflated stream; what lies before them is given up."""
        end = offset_bytes + length_bytes
        while self._start + len(self._buf) < end and not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._window.peek(FIRST_READ)
            if not packed:
                break
            if packed is not self._inflate.unconsumed_tail:
                self._window.skip(len(packed))
            # Bounded, for a few packed bytes may hold a great many.
            self._buf += self._inflate.decompress(packed, _MOST_READ)
            excess = min(len(self._buf), offset_bytes - self._start)
            if excess > 0:
                self._buf, self._start = self._buf[excess:], self._start + excess
        first = offset_bytes - self._start
        return self._buf[first : first + length_bytes]
