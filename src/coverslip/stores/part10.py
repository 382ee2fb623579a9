"""Header and frames of a Part 10 file on disk, found without reading its pixel data (PS3.5 A.4, PS3.10)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from coverslip.errors import StoreError
from coverslip.stores.quiet import no_pydicom_warnings

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["Part10File", "sample_frame_numbers"]

type FramePlaces = Sequence[tuple[int, int]]
"""Offset in the file and length of each fragment of a frame."""

_ITEM = b"\xfe\xff\x00\xe0"
_PIXEL_DATA = b"\xe0\x7f\x10\x00"
_UNDEFINED = 0xFFFFFFFF


def sample_frame_numbers(number_of_frames: int, count: int) -> tuple[int, ...]:
    """Return at most `count` 1-based frame numbers, evenly spread, the first and the last among them."""
    if number_of_frames <= count:
        return tuple(range(1, number_of_frames + 1))
    if count < 2:
        return (1,) * count
    return tuple(1 + index * (number_of_frames - 1) // (count - 1) for index in range(count))


class Part10File:
    """A Part 10 file; each use opens it anew, so that threads may share it.

    Parameters
    ----------
    path : Path

    Raises
    ------
    StoreError
        On first use, if the file cannot be read as DICOM.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def header(self) -> Dataset:
        """Data set with file meta information, without pixel data."""
        return self._parsed[0]

    @cached_property
    def number_of_frames(self) -> int:
        """Number of frames; zero if the instance has no pixel data."""
        return int(self.header.get("NumberOfFrames", 1) or 1) if self._parsed[1] is not None else 0

    @cached_property
    def is_encapsulated(self) -> bool:
        """Whether frames are stored compressed."""
        return bool(self.header.file_meta.TransferSyntaxUID.is_encapsulated)

    @property
    def pixel_data_bytes(self) -> int:
        """Length of native pixel data."""
        return self._native[1] * self.number_of_frames

    def frame_places(self, number: int) -> FramePlaces:
        """Return where in the file the bytes of a frame lie.

        Parameters
        ----------
        number : int
            1-based.
        """
        if not 1 <= number <= self.number_of_frames:
            raise ValueError(f"frame {number} of {self.number_of_frames}")
        if not self.is_encapsulated:
            start, length = self._native
            return ((start + (number - 1) * length, length),)
        with self._open() as file:
            return self._encapsulated_places(file, number - 1)

    def read_frame(self, number: int) -> bytes:
        """Return the stored bytes of a frame, with padding if it has any."""
        places = self.frame_places(number)
        with self._open() as file:
            return b"".join(_read_at(file, offset, length) for offset, length in places)

    def _open(self) -> BinaryIO:
        try:
            return open(self.path, "rb")
        except OSError as error:
            raise StoreError(f"{self.path.name}: cannot be read: {error.strerror}") from None

    @cached_property
    def _parsed(self) -> tuple[Dataset, int | None]:
        """Header, and the offset of the element Pixel Data."""
        from pydicom import dcmread
        from pydicom.errors import InvalidDicomError

        with self._open() as file:
            try:
                with no_pydicom_warnings():
                    header = dcmread(file, stop_before_pixels=True)
            except (InvalidDicomError, ValueError, EOFError, AttributeError, KeyError, struct.error, OSError):
                raise StoreError(f"{self.path.name}: not a readable DICOM file") from None
            if header.file_meta.get("TransferSyntaxUID") is None:
                raise StoreError(f"{self.path.name}: no transfer syntax in the file meta information")
            start = file.tell()
            return header, start if file.read(4) == _PIXEL_DATA else None

    @cached_property
    def _value_offset(self) -> int:
        """Offset of the value of Pixel Data."""
        start = self._parsed[1]
        assert start is not None
        return start + (8 if self.header.file_meta.TransferSyntaxUID.is_implicit_VR else 12)

    @cached_property
    def _native(self) -> tuple[int, int]:
        """Offset of the first frame, and length of each."""
        header = self.header
        bits = header.Rows * header.Columns * header.get("SamplesPerPixel", 1) * header.BitsAllocated
        if bits % 8:
            raise StoreError(f"{self.path.name}: frames of {bits} bits cannot be told apart")
        return self._value_offset, bits // 8

    @cached_property
    def _first_item(self) -> tuple[int, tuple[int, ...]]:
        """Offset of the item after the basic offset table, and the table."""
        with self._open() as file:
            length = self._item_length(file, self._value_offset)
            table = _read_at(file, self._value_offset + 8, length)
        return self._value_offset + 8 + length, struct.unpack(f"<{length // 4}I", table[: length // 4 * 4])

    @cached_property
    def _extended(self) -> tuple[bytes, bytes]:
        """Extended offset table and lengths; empty without."""
        header = self.header
        return bytes(header.get("ExtendedOffsetTable", b"")), bytes(header.get("ExtendedOffsetTableLengths", b""))

    def _encapsulated_places(self, file: BinaryIO, index: int) -> FramePlaces:
        first, basic = self._first_item
        offsets, lengths = self._extended
        count = self.number_of_frames
        if len(offsets) >= 8 * count and len(lengths) >= 8 * count:
            (offset,) = struct.unpack_from("<Q", offsets, 8 * index)
            (length,) = struct.unpack_from("<Q", lengths, 8 * index)
            return ((first + offset + 8, length),)
        if len(basic) == count:
            start = first + basic[index]
            end = first + basic[index + 1] if index + 1 < count else None
            return tuple(self._iter_items(file, start, end))
        items = self._all_items
        if count == 1:
            return items
        if len(items) != count:
            raise StoreError(f"{self.path.name}: {len(items)} fragments without an offset table, expected {count}")
        return (items[index],)

    @cached_property
    def _all_items(self) -> FramePlaces:
        with self._open() as file:
            return tuple(self._iter_items(file, self._first_item[0], None))

    def _iter_items(self, file: BinaryIO, start: int, end: int | None) -> FramePlaces:
        places = []
        while end is None or start < end:
            file.seek(start)
            if file.read(4) != _ITEM:
                break  # the sequence delimiter
            length = self._item_length(file, start)
            places.append((start + 8, length))
            start += 8 + length
        return places

    def _item_length(self, file: BinaryIO, offset: int) -> int:
        tag = _read_at(file, offset, 8)
        if tag[:4] != _ITEM or len(tag) < 8:
            raise StoreError(f"{self.path.name}: byte {offset}: no item of pixel data")
        (length,) = struct.unpack("<I", tag[4:])
        if length == _UNDEFINED:
            raise StoreError(f"{self.path.name}: byte {offset}: item of undefined length")
        return int(length)


def _read_at(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    return file.read(length)
