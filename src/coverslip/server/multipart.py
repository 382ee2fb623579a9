"""Answers in parts (RFC 2387)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

__all__ = ["BOUNDARY", "END", "content_type", "iter_multipart", "part_head"]

BOUNDARY = "coverslip-b7c1e5f0a94d4c62b8f3"
END = f"\r\n--{BOUNDARY}--\r\n".encode()


def content_type(media_type: str, transfer_syntax_uid: str = "") -> str:
    """Return the Content-Type of the whole."""
    syntax = f"; transfer-syntax={transfer_syntax_uid}" if transfer_syntax_uid else ""
    return f'multipart/related; type="{media_type}"{syntax}; boundary={BOUNDARY}'


def part_head(media_type: str, transfer_syntax_uid: str = "", *, first: bool = True) -> bytes:
    """Return what stands before the content of a part."""
    syntax = f"; transfer-syntax={transfer_syntax_uid}" if transfer_syntax_uid else ""
    start = "" if first else "\r\n"
    return f"{start}--{BOUNDARY}\r\nContent-Type: {media_type}{syntax}\r\n\r\n".encode()


def iter_multipart(media_type: str, transfer_syntax_uid: str, parts: Iterable[Iterable[bytes]]) -> Iterator[bytes]:
    """Yield an answer whose parts come in pieces."""
    first = True
    for part in parts:
        yield part_head(media_type, transfer_syntax_uid, first=first)
        yield from part
        first = False
    yield END
