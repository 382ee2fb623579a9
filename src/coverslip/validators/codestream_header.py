"""Where the header of a compressed frame ends, and which frames have the same one.

Nearly all frames of an image have the same header; whoever looks at headers looks at each different one once.
"""

from __future__ import annotations

from array import array

__all__ = ["HEAD_BYTES", "CodestreamHeaders", "header_end", "kind_of"]

HEAD_BYTES = 1024
"""Of a frame, that hold its header as a rule."""

_MOST_KEPT = 1000
_LONGEST_KEPT = 16384
_NO_CODESTREAM_BYTES = 16
_JPEG_2000 = b"\xff\x4f\xff\x51"
_SOS, _SOF55 = 0xDA, 0xF7
_SOT, _SOD = 0x90, 0x93
_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP"


def kind_of(head: bytes) -> str | None:
    """Return ``"JPEG"``, ``"JPEG-LS"``, ``"JPEG 2000"``, or None, by how a frame begins."""
    if head.startswith((_JPEG_2000, _JP2_SIGNATURE)):
        return "JPEG 2000"
    if not head.startswith(b"\xff\xd8\xff"):
        return None
    at = 2
    while at + 4 <= len(head) and head[at] == 0xFF:
        if head[at + 1] == _SOF55:
            return "JPEG-LS"
        if 0xC0 <= head[at + 1] <= 0xC3:
            return "JPEG"
        at += 2 + int.from_bytes(head[at + 2 : at + 4])
    return "JPEG"


def header_end(head: bytes) -> int | None:
    """Return how many bytes of a frame are its header, None if it goes on past `head`.

    The header of a JPEG or JPEG-LS frame ends with that of its first scan, that of JPEG 2000 with that of its first
    tile-part. Of what is neither, the first bytes are taken for one.
    """
    if head.startswith(b"\xff\xd8\xff"):
        last = _SOS
    elif head.startswith(_JPEG_2000):
        last = _SOD
    elif head.startswith(_JP2_SIGNATURE):
        return None
    else:
        return min(len(head), _NO_CODESTREAM_BYTES)
    at = 2
    while at + 4 <= len(head):
        if head[at] != 0xFF:
            return at + 2  # no marker where one must be: whoever parses it will say so
        if head[at + 1] == _SOD:
            return at + 2
        end = at + 2 + int.from_bytes(head[at + 2 : at + 4])
        if head[at + 1] == last:
            return end if end <= len(head) else None
        at = end
    return None


class CodestreamHeaders:
    """The different headers of an instance's items, as many as can be kept, and which of them each item has.

    Parameters
    ----------
    kept : list of bytes
        Of JPEG 2000 without the length of the tile-part, in which frames differ.
    numbers : array
        For each item the index in `kept`, -1 if its header was not kept: too long, or too many are different.
    """

    def __init__(self) -> None:
        self.kept: list[bytes] = []
        self.numbers = array("i")
        self._known: dict[bytes, int] = {}
        self._last = -1
        self._jpeg = False  # whether the last header ends where its frame says: then a frame that begins so has it too

    def add(self, head: bytes) -> None:
        """Count the next item, by its first bytes."""
        if not self.has_last(head):
            self._last = self._number(head)
            self._jpeg = self._last >= 0 and head.startswith(b"\xff\xd8\xff")
        self.numbers.append(self._last)

    def has_last(self, head: bytes) -> bool:
        """Whether an item begins with the very header of the item before, which ends within these bytes."""
        return self._jpeg and head.startswith(self.kept[self._last])

    def _number(self, head: bytes) -> int:
        end = header_end(head)
        if end is None or end > _LONGEST_KEPT:
            return -1
        header = head[:end]
        if header.startswith(_JPEG_2000):
            header = _without_length(header)
        number = self._known.get(header, -1)
        if number < 0 and len(self.kept) < _MOST_KEPT:
            number = self._known[header] = len(self.kept)
            self.kept.append(header)
        return number


def _without_length(header: bytes) -> bytes:
    """Return a JPEG 2000 header with the length in its SOT segment set to 0 (T.800 A.4.2)."""
    at = 2
    while at + 10 <= len(header):
        if header[at + 1] == _SOT:
            return header[: at + 6] + bytes(4) + header[at + 10 :]
        at += 2 + int.from_bytes(header[at + 2 : at + 4])
    return header
