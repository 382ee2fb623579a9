"""Read the header of one instance into a row, without making a data set of it.

Making a pydicom `Dataset` and every value in it takes several times longer than reading the file, so bytes become
values of columns directly. What follows the header is never read: pixel data, per-frame groups and offset tables are
stepped over or stopped at, so memory is bounded by the largest single element that has a column.
"""

from __future__ import annotations

import io
import struct
import zlib
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from coverslip.catalog.byte_window import FIRST_READ, ByteSource, ByteWindow, InflatedBytes
from coverslip.catalog.columns import Column, ColumnTree, Kind, Level
from coverslip.catalog.element_values import NUMBERS, How, how_to_read, misfit_reason, values_of
from coverslip.catalog.export_rules import MAX_SEQUENCE_BYTES, Drop
from coverslip.errors import CorruptSourceError, MissingMetadataError, UnsupportedSourceError

if TYPE_CHECKING:
    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset

__all__ = ["BytesSource", "Header", "HeaderReader", "as_part10"]

type Row = dict[str, Any]

_UNDEFINED = 0xFFFFFFFF
_CHARACTER_SET, _PIXEL_REPRESENTATION = 0x00080005, 0x00280103
_PER_FRAME_GROUPS = 0x52009230
_PIXELS, _PIXEL_DATA = 0x7FE00000, 0x7FE00010
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_END_OF_FRAMES = b"\xfe\xff\xdd\xe0\0\0\0\0"
_LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_BINARY_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW"})
_BIG_ENDIAN, _IMPLICIT, _DEFLATED = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99"
_WHOLE_SLIDE_IMAGE = "1.2.840.10008.5.1.4.1.1.77.1.6"
_LARGEST_ELEMENT = 64 * 1024 * 1024
"""A longer element is stepped over; its sequences would be dropped for their size anyway."""
_CACHED_BYTES = 128 * 1024
_CACHED_SEQUENCES = 256


@dataclass(frozen=True, slots=True)
class Header:
    """What one instance says, as a row of `dicom_metadata`.

    Parameters
    ----------
    row : dict
        By column; what is absent or empty is not in it.
    drops : tuple of Drop
        What is in the header and not in the row.
    misfits : tuple of Drop
        Values among the drops that do not fit the type of their column.
    """

    row: Row
    drops: tuple[Drop, ...]
    misfits: tuple[Drop, ...]


@dataclass(frozen=True, slots=True)
class BytesSource:
    """The bytes of an instance that is in memory."""

    data: bytes

    @property
    def size_bytes(self) -> int:
        """Their number."""
        return len(self.data)

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Return bytes, fewer at the end."""
        return self.data[offset_bytes : offset_bytes + length_bytes]


def as_part10(ds: Dataset) -> bytes:
    """Return a data set that a service told of as the file that it would be, without pixel data.

    What reads files then reads data sets too, by the same rules. Decimal strings that a service told as numbers have
    lost their text, and get the shortest.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.filewriter import write_dataset
    from pydicom.uid import ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.update(getattr(ds, "file_meta", None) or {})
    meta.MediaStorageSOPClassUID = ds.get("SOPClassUID", "")
    meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID", "")
    if "TransferSyntaxUID" not in meta:
        # Metadata of DICOMweb may tell how the instance is stored, in an element that no data set of a file has.
        told = ds.get("AvailableTransferSyntaxUID")
        meta.TransferSyntaxUID = told[0] if isinstance(told, list) else (told or ExplicitVRLittleEndian)
    tags = [tag for tag in ds.keys() if 0x0002FFFF < tag < _PIXELS and tag != _PER_FRAME_GROUPS]  # noqa: SIM118
    body = deepcopy(Dataset({tag: ds[tag] for tag in tags}))
    body.walk(_make_writable)
    stream = io.BytesIO()
    stream.write(bytes(128) + b"DICM")
    for part in (meta, body):
        buffer = _little_endian_buffer()
        write_dataset(buffer, part)
        stream.write(buffer.getvalue())
    return stream.getvalue()


def _make_writable(_: Dataset, element: DataElement) -> None:
    """Give decimal strings that came as numbers the text that a file would have: ``40``, not ``40.0``.

    Bytes, which have no column, are left out: services tell some of them as numbers, which could not be written.
    """
    if element.VR.encode() in _BINARY_VRS:
        element.value = b""
    if element.VR != "DS" or element.value is None:
        return
    values = element.value if element.VM > 1 else [element.value]
    if any(getattr(value, "original_string", None) is None for value in values):
        from pydicom.valuerep import format_number_as_ds

        element.value = [format_number_as_ds(float(value)).removesuffix(".0") for value in values]


def _little_endian_buffer() -> Any:
    from pydicom.filebase import DicomBytesIO

    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    return buffer


class HeaderReader:
    """Reads headers one after another, remembering sequences: instances of one slide share most of theirs.

    Parameters
    ----------
    tree : ColumnTree
        Grows when a header has more. Not safe to share between threads.
    """

    def __init__(self, tree: ColumnTree) -> None:
        self.tree = tree
        self._remembered: dict[tuple[str, str, bool, bytes], _Sequence] = {}
        self._drops: list[Drop] = []
        self._misfits: list[Drop] = []
        self._extracted = 0
        self._signed = False

    def read(self, source: ByteSource, *, whole: bool = False) -> Header:
        """Read the header of an instance.

        Parameters
        ----------
        whole : bool
            Also look whether the file goes on to the end of its pixel data, without reading them.

        Raises
        ------
        UnsupportedSourceError
            If it is no DICOM file.
        CorruptSourceError
            If the header ends early or cannot be followed.
        MissingMetadataError
            If it does not say which instance of which series and study it is.
        """
        window = ByteWindow(source)
        if window.peek(132)[128:132] != b"DICM":
            raise UnsupportedSourceError("no DICOM file: there is no DICM at byte 128")
        window.skip(132)
        self._drops, self._misfits, self._signed = [], [], False
        row: Row = {}
        try:
            self._read_data_set(window, row, whole=whole)
        except (struct.error, zlib.error, RecursionError) as error:
            raise CorruptSourceError(f"the header cannot be followed: {error}", byte_offset=window.offset) from None
        for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
            if not row.get(keyword):
                raise MissingMetadataError(f"no instance: {keyword} is missing")
        return Header(row, tuple(self._drops), tuple(self._misfits))

    def _read_data_set(self, window: ByteWindow, row: Row, *, whole: bool) -> None:
        self._read_elements(window, how_to_read(implicit=False, big=False), row, meta=True)
        syntax = row.get("TransferSyntaxUID", "")
        if syntax == _DEFLATED:
            window, whole = ByteWindow(InflatedBytes(window)), False
        how = how_to_read(implicit=syntax == _IMPLICIT, big=syntax == _BIG_ENDIAN)
        self._read_elements(window, how, row, meta=False)
        if whole:
            if not window.peek(1) and ("Rows" in row or row.get("SOPClassUID") == _WHOLE_SLIDE_IMAGE):
                raise CorruptSourceError("ends before the pixel data", byte_offset=window.offset)
            _require_pixels(window, how)

    def _read_elements(self, window: ByteWindow, how: How, row: Row, *, meta: bool) -> None:
        """Read the elements of the top level, taking from the file what each one needs."""
        level = self.tree.root
        by_tag = level.by_tag
        while head := window.peek(12):
            if meta and head[:2] != b"\x02\x00":
                return  # what follows is encoded otherwise
            if len(head) < 8:
                raise CorruptSourceError("ends inside an element", byte_offset=window.offset)
            tag, vr, length, start = _element(head, 0, how)
            if tag >= _PIXELS:
                return
            column = by_tag.get(tag) or level.column(tag, vr.decode("latin-1"))
            if tag == _PER_FRAME_GROUPS:
                self._drops.append(Drop(column.path, "per frame"))
                if length == _UNDEFINED:
                    return  # only pixel data follow in an image with frames
                window.skip(start + length)
                continue
            if length == _UNDEFINED:
                self._read_open_sequence(window, start, how, column, row, vr)
                continue
            window.require(start + length)
            if length > _LARGEST_ELEMENT or column.kind >= Kind.IGNORED or vr in _BINARY_VRS:
                self._drop(column, "too large" if length > _LARGEST_ELEMENT else "")
                window.skip(start + length)
                continue
            window.skip(start)
            raw = window.take(length)
            if column.kind is Kind.SEQUENCE:
                self._read_closed_sequence(raw, how, column, row, vr)
                continue
            self._read_value(column, vr, raw, how, level, row, tag)
            if tag == _CHARACTER_SET:
                how = _with_character_sets(how, row)
            elif tag == _PIXEL_REPRESENTATION:
                self._signed = row.get("PixelRepresentation") == 1

    def _read_closed_sequence(self, raw: bytes, how: How, column: Column, row: Row, vr: bytes) -> None:
        key = (column.path, how.name, self._signed, raw)
        found = self._remembered.get(key)
        if found is None:
            try:
                found, _ = self._sequence(raw, 0, len(raw), _inner(how, vr), column)
            except _OutOfBytesError:
                raise CorruptSourceError(f"{column.path}: an item goes on beyond its sequence") from None
            if len(raw) <= _CACHED_BYTES:
                if len(self._remembered) >= _CACHED_SEQUENCES:
                    self._remembered.pop(next(iter(self._remembered)))
                self._remembered[key] = found
        self._keep(found, column, row)

    def _read_open_sequence(
        self, window: ByteWindow, start: int, how: How, column: Column, row: Row, vr: bytes
    ) -> None:
        """Read a sequence that does not tell its length, with more and more bytes until its end is among them."""
        wanted = FIRST_READ
        while True:
            raw = window.peek(wanted)
            try:
                found, end = self._sequence(raw, start, None, _inner(how, vr), column)
                break
            except (_OutOfBytesError, struct.error):
                if len(raw) < wanted:
                    reason = f"{column.path}: ends inside a sequence"
                    raise CorruptSourceError(reason, byte_offset=window.offset) from None
                if wanted > _LARGEST_ELEMENT:
                    reason = f"{column.path}: undefined length, and no end within {_LARGEST_ELEMENT} bytes"
                    raise CorruptSourceError(reason, byte_offset=window.offset) from None
                wanted *= 4
        window.skip(end)
        self._keep(found, column, row)

    def _sequence(self, raw: bytes, pos: int, end: int | None, how: How, column: Column) -> tuple[_Sequence, int]:
        """Read a sequence of the top level, and return where it ends."""
        outer = self._drops, self._misfits
        self._drops, self._misfits, self._extracted = [], [], 0
        try:
            items, end = self._items(raw, pos, end, how, column)
            return _Sequence(items, self._extracted, tuple(self._drops), tuple(self._misfits)), end
        finally:
            self._drops, self._misfits = outer

    def _keep(self, sequence: _Sequence, column: Column, row: Row) -> None:
        if column.kind is not Kind.SEQUENCE:
            self._drops.append(Drop(column.path, "unknown"))
            return
        if sequence.extracted_bytes >= MAX_SEQUENCE_BYTES:
            self._drops.append(Drop(column.path, "1 MiB or more"))
            return
        self._drops += sequence.drops
        self._misfits += sequence.misfits
        if sequence.items:
            row[column.name] = sequence.items

    def _items(self, buf: bytes, pos: int, end: int | None, how: How, column: Column) -> tuple[list[Row], int]:
        """Return the items of a sequence from its first one on, and where it ends."""
        # Where there is no column the items are followed, for only so their end is found, and not kept.
        level = column.inner or Level(ColumnTree(()), (), 2, f"{column.path}.")
        items: list[Row] = []
        last = len(buf) if end is None else end
        while end is None or pos < end:
            if pos + 8 > last:
                raise _OutOfBytesError
            group, element, length = how.item(buf, pos)
            tag = group << 16 | element
            pos += 8
            if tag == _SEQUENCE_END:
                break
            if tag != _ITEM:
                raise CorruptSourceError(f"{column.path}: no item where one should be")
            stop = None if length == _UNDEFINED else pos + length
            if stop is not None and stop > last:
                raise _OutOfBytesError
            item, pos = self._item(buf, pos, stop, how, level)
            items.append(item)
        return items, pos

    def _item(self, buf: bytes, pos: int, end: int | None, how: How, level: Level) -> tuple[Row, int]:
        """Read the elements of one item, and return where it ends."""
        row: Row = {}
        by_tag = level.by_tag
        last = len(buf) if end is None else end
        while end is None or pos < end:
            if pos + 8 > last:
                raise _OutOfBytesError
            tag, vr, length, pos = _element(buf, pos, how)
            if tag == _ITEM_END:
                break
            column = by_tag.get(tag) or level.column(tag, vr.decode("latin-1"))
            stop = None if length == _UNDEFINED else pos + length
            if stop is not None and stop > last:
                raise _OutOfBytesError
            if column.kind is Kind.SEQUENCE or stop is None or column.kind is Kind.TOO_DEEP:
                outer = self._drops
                items, pos = self._items(buf, pos, stop, _inner(how, vr), column)
                if column.kind is not Kind.SEQUENCE:
                    self._drops = outer
                    self._drop(column, "" if column.kind is Kind.TOO_DEEP else "unknown")
                elif items:
                    row[column.name] = items
                continue
            raw = buf[pos:stop]
            pos = stop
            if column.kind >= Kind.IGNORED or vr in _BINARY_VRS:
                self._drop(column, "")
                continue
            self._read_value(column, vr, raw, how, level, row, tag)
            if tag == _CHARACTER_SET:
                how = _with_character_sets(how, row)
        return row, pos

    def _drop(self, column: Column, reason: str) -> None:
        if column.kind is Kind.IGNORED or column.name == "FileMetaInformationVersion":
            return
        if not reason:
            reason = {Kind.UNKNOWN: "unknown", Kind.TOO_DEEP: "nested too deep"}.get(column.kind, "binary")
        self._drops.append(Drop(column.path, reason))

    def _read_value(  # noqa: PLR0917 - called for every element
        self, column: Column, vr: bytes, raw: bytes, how: How, level: Level, row: Row, tag: int
    ) -> None:
        self._extracted += len(raw)
        if how.implicit or vr == b"UN":
            vr = _private_vr(row, tag) if column.kind is Kind.PRIVATE else column.vr.encode()
            if vr == b"UN":
                self._drops.append(Drop(column.path, "binary"))
                return
            if vr == b"US" and self._signed and _may_be_signed(tag):
                vr = b"SS"
        if column.plain_text and vr not in NUMBERS:
            text = how.decode(raw)
            text = text.rstrip(" \0") if column.single_text else text.strip(" \0")
            if text:
                row[column.name] = text
            return
        try:
            values = values_of(column, vr, raw, how)
        except (ValueError, struct.error) as error:
            misfit = Drop(column.path, f"does not fit {column.type}: {misfit_reason(error)}")
            self._drops.append(misfit)
            self._misfits.append(misfit)
            return
        if not values:
            return
        if column.kind is Kind.PRIVATE:
            level.add_other_elements()
            row.setdefault("OtherElements", []).append({"Tag": column.name, "Data": [str(value) for value in values]})
        elif column.kind is Kind.REPEATING_GROUP:
            value = values if column.repeated else values[0]
            row.setdefault(column.name, []).append({"Id": f"{tag >> 16:04X}", "Value": value})
        else:
            row[column.name] = values if column.repeated else values[0]


@dataclass(frozen=True, slots=True)
class _Sequence:
    """A sequence of the top level that was read."""

    items: list[Row]
    extracted_bytes: int
    drops: tuple[Drop, ...]
    misfits: tuple[Drop, ...]


class _OutOfBytesError(Exception):
    """Something goes on beyond the bytes at hand."""


def _element(buf: bytes, pos: int, how: How) -> tuple[int, bytes, int, int]:
    """Return tag, VR, length and where the value starts."""
    if how.implicit:
        group, element, length = how.item(buf, pos)
        return group << 16 | element, b"UN", length, pos + 8
    group, element, vr, length = how.short(buf, pos)
    tag = group << 16 | element
    if group == 0xFFFE:
        return tag, b"", how.long(buf, pos + 4)[0], pos + 8
    if vr in _LONG_VRS:
        return tag, vr, how.long(buf, pos + 8)[0], pos + 12
    if not vr.isalpha() or not vr.isupper():
        raise CorruptSourceError(f"({group:04X},{element:04X}): no value representation where one should be")
    return tag, vr, length, pos + 8


def _inner(how: How, vr: bytes) -> How:
    """Return how the items of a sequence are read: one of unknown VR is written without VRs (PS3.5 6.2.2)."""
    if vr != b"UN" or how.implicit:
        return how
    return how_to_read(implicit=True, big=False, character_sets=how.character_sets)


def _with_character_sets(how: How, row: Row) -> How:
    sets = tuple(row.get("SpecificCharacterSet", ()))
    return how_to_read(implicit=how.implicit, big=how.byte_order == ">", character_sets=sets)


@lru_cache(maxsize=4096)
def _may_be_signed(tag: int) -> bool:
    from pydicom.datadict import dictionary_VR

    return "SS" in dictionary_VR(tag)


def _private_vr(row: Row, tag: int) -> bytes:
    """Return the VR of a private element that is written without one, UN if nobody knows it."""
    from pydicom.datadict import private_dictionary_VR

    if tag & 0xFF00 == 0:
        return b"LO"  # a private creator
    creator_tag = f"Tag_{tag & 0xFFFF0000 | (tag & 0xFFFF) >> 8:08X}"
    for each in row.get("OtherElements", ()):
        if each["Tag"] == creator_tag:
            try:
                return private_dictionary_VR(tag, each["Data"][0]).split(" or ")[0].encode()
            except KeyError:
                return b"UN"
    return b"UN"


def _require_pixels(window: ByteWindow, how: How) -> None:
    """Make sure that a file holds all of its pixel data, looking at their lengths alone."""
    while head := window.peek(12):
        if len(head) < 8:
            raise CorruptSourceError("ends inside an element", byte_offset=window.offset)
        tag, _, length, start = _element(head, 0, how)
        if length != _UNDEFINED:
            window.require(start + length)
            window.skip(start + length)
            continue
        size = window.source.size_bytes
        if tag != _PIXEL_DATA or size is None or window.source.read(size - 8, 8) == _END_OF_FRAMES:
            return
        window.skip(start)
        _require_fragments(window, how)


def _require_fragments(window: ByteWindow, how: How) -> None:
    while True:
        head = window.peek(8)
        if len(head) < 8:
            raise CorruptSourceError("ends before the pixel data do", byte_offset=window.offset)
        group, element, length = how.item(head, 0)
        window.require(8 + length)
        window.skip(8 + length)
        if group << 16 | element == _SEQUENCE_END:
            return
