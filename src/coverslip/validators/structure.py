"""The check every conversion makes of its own files before they get their final names."""

from __future__ import annotations

import os
import struct
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID

from coverslip.errors import ValidationFailedError

__all__ = ["StructureExpectation", "check_structure"]

_ITEM_TAG = 0xE000FFFE
_SEQUENCE_END_TAG = 0xE0DDFFFE


@dataclass(frozen=True, slots=True)
class StructureExpectation:
    """What a file must turn out to be."""

    sop_instance_uid: str
    transfer_syntax_uid: str
    number_of_frames: int
    size_bytes: int
    offset_table: str


def check_structure(path: Path, expected: StructureExpectation) -> None:
    """Read a file back and check header, number of items, offset table and end.

    Nothing is decoded, and memory does not grow with the file.

    Raises
    ------
    ValidationFailedError
        If the file is not what was meant to be written.
    """
    with path.open("rb", buffering=0) as raw:
        size = os.fstat(raw.fileno()).st_size
        _require("file size", size, expected.size_bytes)
        with open(os.dup(raw.fileno()), "rb") as file:
            try:
                ds = dcmread(file, stop_before_pixels=True)
            except (InvalidDicomError, EOFError, ValueError) as error:
                raise ValidationFailedError(f"self-check: header cannot be read: {error}") from error
            start = file.tell()
        _require("SOP Instance UID", str(ds.file_meta.MediaStorageSOPInstanceUID), expected.sop_instance_uid)
        _require("SOP Instance UID", str(ds.SOPInstanceUID), expected.sop_instance_uid)
        _require("transfer syntax", str(ds.file_meta.TransferSyntaxUID), expected.transfer_syntax_uid)
        _require("number of frames", int(ds.NumberOfFrames), expected.number_of_frames)
        group, element, _vr, _zero, length = struct.unpack("<HH2sHI", os.pread(raw.fileno(), 12, start))
        _require("last element", (group, element), (0x7FE0, 0x0010))
        if UID(expected.transfer_syntax_uid).is_encapsulated:
            _require("length of encapsulated pixel data", length, 0xFFFFFFFF)
            items = _walk_items(raw, start + 12, size, expected.number_of_frames)
            _check_offset_table(raw, ds, start + 12, expected.offset_table, items)
        else:
            bits = ds.Rows * ds.Columns * ds.SamplesPerPixel * ds.BitsAllocated
            _require("length of pixel data", length, -(-bits * ds.NumberOfFrames // 16) * 2)
            _require("end of pixel data", start + 12 + length, size)


def _walk_items(file: BinaryIO, position: int, size: int, number_of_frames: int) -> tuple[list[int], list[int]]:
    """Return each frame's offset from the first item, and its length, found by walking from item to item."""
    descriptor = file.fileno()
    tag, length = struct.unpack("<II", os.pread(descriptor, 8, position))
    _require("tag of the basic offset table", tag, _ITEM_TAG)
    position += 8 + length
    first = position
    offsets: list[int] = []
    lengths: list[int] = []
    while True:
        header = os.pread(descriptor, 8, position)
        if len(header) < 8:
            raise ValidationFailedError(f"pixel data end in the middle of item {len(offsets)}")
        tag, length = struct.unpack("<II", header)
        if tag == _SEQUENCE_END_TAG:
            break
        if tag != _ITEM_TAG:
            raise ValidationFailedError(f"self-check: tag of item {len(offsets)} is {tag}, expected {_ITEM_TAG}")
        if not length or length % 2:
            raise ValidationFailedError(f"item {len(offsets)} has {length} bytes, expected an even number above 0")
        offsets.append(position - first)
        lengths.append(length)
        position += 8 + length
    _require("end of pixel data", position + 8, size)
    _require("number of items", len(offsets), number_of_frames)
    return offsets, lengths


def _check_offset_table(
    file: BinaryIO, ds: Dataset, position: int, kind: str, items: tuple[list[int], list[int]]
) -> None:
    """Compare a file's offset table with its items."""
    offsets, lengths = items
    _tag, length = struct.unpack("<II", os.pread(file.fileno(), 8, position))
    if kind == "bot":
        _require("length of the basic offset table", length, 4 * len(offsets))
        _require("offset table", array("I", os.pread(file.fileno(), length, position + 8)).tolist(), offsets)
        return
    _require("length of the basic offset table", length, 0)
    if kind == "eot":
        stated = ds.get("ExtendedOffsetTable", b""), ds.get("ExtendedOffsetTableLengths", b"")
        _require("offset table", array("Q", stated[0]).tolist(), offsets)
        _require("lengths of the extended offset table", array("Q", stated[1]).tolist(), lengths)


def _require(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        if isinstance(found, list) and isinstance(wanted, list):
            found, wanted = f"{len(found)} entries", f"the {len(wanted)} of the items"
        raise ValidationFailedError(f"self-check: {what} is {found}, expected {wanted}")
