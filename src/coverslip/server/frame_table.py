"""Where each frame of an instance lies: from its offset table, or from one walk along its items (PS3.5 A.4)."""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coverslip.errors import CorruptSourceError

if TYPE_CHECKING:
    from coverslip.validators.instance import InstanceView

__all__ = ["FrameTable", "build_frame_table", "unwrap_items"]

_ITEM = b"\xfe\xff\x00\xe0"
_ITEM_HEADER = 8
_MOST_ITEM_BYTES = 1 << 31


@dataclass(frozen=True, slots=True)
class FrameTable:
    """Spans of the frames in the file.

    Parameters
    ----------
    starts, ends : array
        Of each frame: with the headers of its items where it is encapsulated.
    encapsulated : bool
    origin : str
        ``native``, ``extended``, ``basic`` or ``scan``: what the table was made from.
    """

    starts: array[int]
    ends: array[int]
    encapsulated: bool
    origin: str

    def __len__(self) -> int:
        return len(self.starts)


def build_frame_table(view: InstanceView) -> FrameTable | None:
    """Find the frames of an instance; None if it has no pixel data.

    Raises
    ------
    CorruptSourceError
        If they cannot be told apart.
    """
    element = view.pixel_element
    if element is None:
        return None
    position, count = element[0], view.number_of_frames
    if not view.encapsulated:
        size = view.decoded_frame_bytes
        if size <= 0 or position + size * count > view.size:
            raise CorruptSourceError(f"{count} frames of {size} bytes do not lie in {view.size} bytes")
        starts = array("Q", range(position, position + size * count, size))
        return FrameTable(starts, array("Q", (start + size for start in starts)), False, "native")
    head = view.pread(_ITEM_HEADER, position)
    if head[:4] != _ITEM:
        raise CorruptSourceError("pixel data begin with no item", byte_offset=position)
    table_bytes = int.from_bytes(head[4:], "little")
    first = position + _ITEM_HEADER + table_bytes
    table = _from_extended(view, first, count)
    if table is None and table_bytes == 4 * count:
        table = _from_basic(view, view.pread(table_bytes, position + _ITEM_HEADER), first, count)
    return table or _walk(view, first, count)


def _from_extended(view: InstanceView, first: int, count: int) -> FrameTable | None:
    offsets = bytes(view.header.get("ExtendedOffsetTable") or b"")
    lengths = bytes(view.header.get("ExtendedOffsetTableLengths") or b"")
    if len(offsets) < 8 * count or len(lengths) < 8 * count:
        return None
    starts = array("Q", offsets[: 8 * count])
    sizes = array("Q", lengths[: 8 * count])
    table = FrameTable(
        array("Q", (first + each for each in starts if each < 1 << 62)),
        array("Q", (first + each + _ITEM_HEADER + size for each, size in zip(starts, sizes, strict=True)
                    if each < 1 << 62 and size < _MOST_ITEM_BYTES)),
        True,
        "extended",
    )  # fmt: skip
    return table if _is_sound(table, view, count) else None


def _from_basic(view: InstanceView, data: bytes, first: int, count: int) -> FrameTable | None:
    """Return the table of a Basic Offset Table: a frame goes as far as the next one, the last to the delimiter."""
    offsets = struct.unpack(f"<{count}I", data) if len(data) == 4 * count else ()
    if not offsets:
        return None
    starts = array("Q", (first + offset for offset in offsets))
    end = starts[-1]
    while (head := view.pread(_ITEM_HEADER, end))[:4] == _ITEM and len(head) == _ITEM_HEADER:
        end += _ITEM_HEADER + int.from_bytes(head[4:], "little")
    table = FrameTable(starts, array("Q", [*starts[1:], end]), True, "basic")
    return table if _is_sound(table, view, count) else None


def _is_sound(table: FrameTable, view: InstanceView, count: int) -> bool:
    """Whether spans follow each other within the file; the first and the last begin with an item."""
    if len(table.starts) != count or len(table.ends) != count or table.ends[-1] > view.size:
        return False
    if any(end <= start or end > view.size for start, end in zip(table.starts, table.ends, strict=True)):
        return False
    return all(view.pread(4, table.starts[index]) == _ITEM for index in (0, count - 1))


def _walk(view: InstanceView, first: int, count: int) -> FrameTable:
    """Go from item to item; each is a frame, or all of them are the only one."""
    starts, ends = array("Q"), array("Q")
    at = first
    while (head := view.pread(_ITEM_HEADER, at))[:4] == _ITEM and len(head) == _ITEM_HEADER:
        end = at + _ITEM_HEADER + int.from_bytes(head[4:], "little")
        if end > view.size:
            break
        starts.append(at)
        ends.append(end)
        at = end
    if count == 1 and starts:
        return FrameTable(starts[:1], ends[-1:], True, "scan")
    if len(starts) != count:
        raise CorruptSourceError(f"{len(starts)} items cannot be told apart into {count} frames")
    return FrameTable(starts, ends, True, "scan")


def unwrap_items(span: bytes) -> bytes:
    """Return the content of the items of one frame.

    Raises
    ------
    CorruptSourceError
        If the span does not hold whole items.
    """
    if span[:4] == _ITEM and int.from_bytes(span[4:8], "little") == len(span) - _ITEM_HEADER:
        return span[_ITEM_HEADER:]
    parts, at = [], 0
    while at + _ITEM_HEADER <= len(span):
        size = int.from_bytes(span[at + 4 : at + _ITEM_HEADER], "little")
        if span[at : at + 4] != _ITEM or at + _ITEM_HEADER + size > len(span):
            break
        parts.append(span[at + _ITEM_HEADER : at + _ITEM_HEADER + size])
        at += _ITEM_HEADER + size
    if not parts or at != len(span):
        raise CorruptSourceError("a frame that is no item of pixel data")
    return b"".join(parts)
