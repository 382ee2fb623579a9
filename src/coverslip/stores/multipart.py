"""Parts of a multipart/related answer, as they come (RFC 2046, RFC 2387)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from email.message import Message

from coverslip.errors import StoreError

__all__ = ["iter_parts"]

_LONGEST_HEAD_BYTES = 64 << 10


def iter_parts(content_type: str, chunks: Iterator[bytes], what: str) -> Iterator[Iterator[bytes]]:
    """Yield the content of each part in pieces; what is not multipart is one part.

    The pieces of a part must be taken before the next part.

    Raises
    ------
    StoreError
        If the answer ends before its last part does; trying again may help.
    """
    message = Message()
    message["Content-Type"] = content_type or "application/octet-stream"
    if message.get_content_maintype() != "multipart":
        yield chunks
        return
    boundary = message.get_boundary()
    if not boundary:
        raise StoreError(f"{what}: an answer in parts without a boundary")
    reader = _Reader(chunks, f"\r\n--{boundary}".encode("ascii", "replace"), what)
    for _ in reader.iter_content():  # what stands before the first part
        pass
    while reader.begin_part():
        pieces = reader.iter_content()
        yield pieces
        for _ in pieces:
            pass


class _Reader:
    """Finds boundaries in a stream, holding no more of it than one of its chunks and a boundary."""

    def __init__(self, chunks: Iterator[bytes], delimiter: bytes, what: str) -> None:
        self._chunks = chunks
        self._delimiter = delimiter
        self._what = what
        self._held = b"\r\n"  # the first boundary has no line before it

    def _more(self) -> None:
        chunk = next(self._chunks, None)
        if chunk is None:
            raise StoreError(f"{self._what}: the answer ends in the middle of a part", retryable=True)
        self._held += chunk

    def iter_content(self) -> Iterator[bytes]:
        """Yield what comes before the next boundary, and leave the stream behind that."""
        keep = len(self._delimiter) - 1
        while (place := self._held.find(self._delimiter)) < 0:
            if len(self._held) > keep:
                piece, self._held = self._held[:-keep], self._held[-keep:]
                yield piece
            self._more()
        piece, self._held = self._held[:place], self._held[place + len(self._delimiter) :]
        if piece:
            yield piece

    def begin_part(self) -> bool:
        """Go to the content of the next part; False after the last."""
        while len(self._held) < 2:
            self._more()
        if self._held.startswith(b"--"):
            return False
        # The head may be empty: then its end is that of the boundary's line.
        while (found := re.search(rb"\A[ \t]*\r\n(?:\r\n|(?:.|\n)*?\r\n\r\n)", self._held)) is None:
            if len(self._held) > _LONGEST_HEAD_BYTES:
                raise StoreError(f"{self._what}: an answer in parts that cannot be told apart")
            self._more()
        self._held = self._held[found.end() :]
        return True
