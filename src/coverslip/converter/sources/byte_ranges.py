"""The seam through which a slide is read that is not a file of this machine."""

from __future__ import annotations

import hashlib
from typing import Protocol

__all__ = ["ByteRanges", "digest_ranges"]

_CHUNK_BYTES = 8 << 20


class ByteRanges(Protocol):
    """The bytes of a slide's one file by offset, wherever it lies; thread safe.

    Every failure is an `OSError`, whose `strerror` says what happened, or an error of coverslip.

    Attributes
    ----------
    size : int
    """

    size: int

    def read(self, offset: int, size: int) -> bytes:
        """Return exactly so many bytes; they lie within the file."""
        ...

    def stream(self, offset: int, size: int) -> bytes:
        """Return the same, of bytes that are not asked for again."""
        ...

    def mark(self) -> str:
        """Return what changes when the file is replaced, asked anew."""
        ...


def digest_ranges(ranges: ByteRanges, *digests: hashlib._Hash) -> hashlib._Hash:
    """Read the whole file once, and return its SHA-256; further digests are fed with it."""
    sha256 = hashlib.sha256()
    for offset in range(0, ranges.size, _CHUNK_BYTES):
        data = ranges.stream(offset, min(_CHUNK_BYTES, ranges.size - offset))
        for digest in (sha256, *digests):
            digest.update(data)
    return sha256
