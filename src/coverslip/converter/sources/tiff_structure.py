"""Read the structure of a TIFF or BigTIFF file: directories, tags and where the tiles lie.

Written for the hot path: it costs no import beyond NumPy and reads values only when they are asked for. Nothing in
the file is trusted; every count and offset is held against the size of the file (TIFF 6.0, BigTIFF design of 2007).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coverslip.converter.sources.byte_ranges import ByteRanges
from coverslip.errors import CorruptSourceError, SourceError, UnsupportedSourceError

__all__ = ["Compression", "Photometric", "TagCode", "TiffPage", "TiffStructure"]


class TagCode(IntEnum):
    """Tags that are read."""

    NEW_SUBFILE_TYPE = 254
    IMAGE_WIDTH = 256
    IMAGE_LENGTH = 257
    BITS_PER_SAMPLE = 258
    COMPRESSION = 259
    PHOTOMETRIC_INTERPRETATION = 262
    DOCUMENT_NAME = 269
    IMAGE_DESCRIPTION = 270
    MAKE = 271
    MODEL = 272
    STRIP_OFFSETS = 273
    SAMPLES_PER_PIXEL = 277
    ROWS_PER_STRIP = 278
    STRIP_BYTE_COUNTS = 279
    X_RESOLUTION = 282
    Y_RESOLUTION = 283
    PLANAR_CONFIGURATION = 284
    RESOLUTION_UNIT = 296
    SOFTWARE = 305
    DATE_TIME = 306
    ARTIST = 315
    HOST_COMPUTER = 316
    PREDICTOR = 317
    COLOR_MAP = 320
    TILE_WIDTH = 322
    TILE_LENGTH = 323
    TILE_OFFSETS = 324
    TILE_BYTE_COUNTS = 325
    SUB_IFDS = 330
    EXTRA_SAMPLES = 338
    SAMPLE_FORMAT = 339
    JPEG_TABLES = 347
    XMP = 700
    IMAGE_DEPTH = 32997
    ARGOS_METADATA = 65000
    ICC_PROFILE = 34675
    NDPI_VERSION = 65420
    NDPI_SOURCE_LENS = 65421
    NDPI_X_OFFSET = 65422
    NDPI_Y_OFFSET = 65423
    NDPI_FOCAL_PLANE = 65424
    NDPI_MCU_STARTS = 65426
    NDPI_REFERENCE = 65427
    NDPI_MCU_STARTS_HIGH = 65432
    NDPI_FILTER_SET = 65434
    NDPI_CAPTURE_MODE = 65441
    NDPI_SERIAL_NUMBER = 65442
    NDPI_PROPERTY_MAP = 65449
    NDPI_WAVELENGTH = 65451


class Compression(IntEnum):
    """Values of the Compression tag that are known by name."""

    NONE = 1
    LZW = 5
    JPEG = 7
    DEFLATE = 8
    JPEG_XR_NDPI = 22610
    APERIO_JPEG2000_YCBCR = 33003
    APERIO_JPEG2000_RGB = 33005
    OLD_DEFLATE = 32946
    JPEG2000 = 34712
    ZSTD = 50000
    WEBP = 50001


class Photometric(IntEnum):
    """Values of the PhotometricInterpretation tag that are known by name."""

    WHITE_IS_ZERO = 0
    BLACK_IS_ZERO = 1
    RGB = 2
    PALETTE = 3
    CMYK = 5
    YCBCR = 6


# NumPy types of the TIFF field types; rationals are pairs. Types 2 and 7 are bytes.
_FIELD_TYPES = {
    1: "u1", 2: "u1", 3: "u2", 4: "u4", 5: "u4", 6: "i1", 7: "u1", 8: "i2", 9: "i4", 10: "i4", 11: "f4", 12: "f8",
    13: "u4", 16: "u8", 17: "i8", 18: "u8",
}  # fmt: skip
_RATIONALS = (5, 10)
_ASCII, _LONG, _SLONG = 2, 4, 9
_WIDENED = {_LONG: 16, _SLONG: 17}
"""64-bit types of the values that NDPI completes with a high word."""
_MAX_TAGS = 4096
_MAX_PAGES = 65536


@dataclass(frozen=True, slots=True)
class _Field:
    """One directory entry: its field type, number of values, and where they start in the file, or the value itself."""

    field_type: int
    count: int
    offset: int
    value: bytes = b""

    @property
    def size(self) -> int:
        """Bytes that the values take."""
        width = int(_FIELD_TYPES[self.field_type][1]) * (2 if self.field_type in _RATIONALS else 1)
        return width * self.count


class TiffStructure:
    """The directories of one open TIFF file; thread safe, owns the file descriptor.

    Parameters
    ----------
    path : Path
    descriptor : int, optional
        Of the open file, which becomes the structure's own; the path is opened without it.
    ranges : ByteRanges, optional
        What the file is read through in place of a descriptor; stays its owner's.

    Attributes
    ----------
    is_ndpi : bool
        Whether this is Hamamatsu's variant of classic TIFF: offsets of directories have 64 bits, and the high words of
        all values and their offsets stand behind each directory; texts never stand inside it.

    Raises
    ------
    SourceError
        If the file cannot be opened.
    UnsupportedSourceError
        If it is no TIFF.
    CorruptSourceError
        If a directory lies past the end of the file, or the chain of directories runs in a circle.
    """

    def __init__(self, path: Path, descriptor: int | None = None, ranges: ByteRanges | None = None) -> None:
        self._ranges = ranges
        self._descriptor = -1
        try:
            if ranges is None:
                self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if descriptor is None else descriptor
        except OSError as error:
            raise SourceError(f"cannot be opened: {error.strerror}") from error
        self.is_ndpi = False
        try:
            self.size = os.fstat(self._descriptor).st_size if ranges is None else ranges.size
            self._read_header()
            self._detect_ndpi()
            self._visited: set[int] = set()
            self.pages = self._read_chain(self._first)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; harmless if closed already."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def read(self, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes at `offset`.

        Raises
        ------
        CorruptSourceError
            If the file ends before.
        SourceError
            If the file cannot be read any more.
        """
        try:
            data = self._read(offset, size) if offset + size <= self.size else b""
        except OSError as error:
            raise SourceError(f"cannot be read: {error.strerror}") from error
        if len(data) != size:
            raise CorruptSourceError(
                f"truncated: {size} bytes expected there, but the file ends at byte {self.size}", byte_offset=offset
            )
        return data

    def _read(self, offset: int, size: int) -> bytes:
        if self._ranges is not None:
            return self._ranges.read(offset, size)
        return os.pread(self._descriptor, size, offset)

    def _read_header(self) -> None:
        header = self.read(0, min(16, self.size))
        self.byte_order = {b"II": "<", b"MM": ">"}.get(header[:2], "")
        version = self._integer(header[2:4]) if self.byte_order else 0
        if version not in (42, 43):
            raise UnsupportedSourceError("not a TIFF file")
        self.is_bigtiff = version == 43
        if len(header) < (16 if self.is_bigtiff else 8):
            raise CorruptSourceError("truncated: the file ends inside the TIFF header")
        if self.is_bigtiff and header[4:8] != self._pack(8, 2) + self._pack(0, 2):
            raise CorruptSourceError("BigTIFF header with an unknown offset size")
        self._first = self._integer(header[8:16] if self.is_bigtiff else header[4:8])

    def _detect_ndpi(self) -> None:
        """See whether the first directory, sought by an offset of 64 bits, is one that Hamamatsu's scanners write."""
        if self.is_bigtiff or self.byte_order == ">" or self.size < 12:
            return
        first = self._integer(self.read(4, 8))
        self.is_ndpi = True
        try:
            page, _ = self._read_directory(first)
        except CorruptSourceError:
            self.is_ndpi = False
            return
        self.is_ndpi = TagCode.NDPI_VERSION in page
        if self.is_ndpi:
            self._first = first

    def _integer(self, data: bytes) -> int:
        return int.from_bytes(data, "little" if self.byte_order == "<" else "big")

    def _pack(self, value: int, size: int) -> bytes:
        return value.to_bytes(size, "little" if self.byte_order == "<" else "big")

    def _read_chain(self, offset: int) -> tuple[TiffPage, ...]:
        """Read directories from `offset` on until one has no successor."""
        pages = []
        while offset:
            if offset in self._visited:
                raise CorruptSourceError("the chain of TIFF directories runs in a circle", byte_offset=offset)
            if len(self._visited) >= _MAX_PAGES:
                raise CorruptSourceError(f"more than {_MAX_PAGES} TIFF directories", byte_offset=offset)
            self._visited.add(offset)
            page, offset = self._read_directory(offset)
            pages.append(page)
        if not pages:
            raise CorruptSourceError("TIFF file without a directory")
        return tuple(pages)

    def _read_directory(self, offset: int) -> tuple[TiffPage, int]:
        """Return the directory at `offset` and the offset of the next, 0 for none."""
        count_size, entry_size, word = (8, 20, 8) if self.is_bigtiff else (2, 12, 4)
        count = self._integer(self.read(offset, count_size))
        if count > _MAX_TAGS:
            raise CorruptSourceError(f"TIFF directory of {count} tags", byte_offset=offset)
        start, link = offset + count_size, 8 if self.is_ndpi else word
        table = self.read(start, count * entry_size + link)
        high_words = self.read(start + len(table), count * 4) if self.is_ndpi else b""
        fields: dict[int, _Field] = {}
        for index in range(count):
            position = index * entry_size
            code = self._integer(table[position : position + 2])
            field_type = self._integer(table[position + 2 : position + 4])
            if field_type not in _FIELD_TYPES:
                continue  # readers must skip unknown field types (TIFF 6.0, section 2)
            values = position + 4 + word
            field = _Field(field_type, self._integer(table[position + 4 : values]), start + values)
            value = table[values : values + word] + high_words[4 * index : 4 * index + 4]
            inside = field.size <= word and not (self.is_ndpi and field_type == _ASCII)
            if not inside:
                field = _Field(field_type, field.count, self._integer(value))
            elif field_type in _WIDENED and field.count == 1 and any(value[word:]):
                field = _Field(_WIDENED[field_type], 1, 0, value)
            fields.setdefault(code, field)
        return TiffPage(self, offset, fields), self._integer(table[count * entry_size :])

    def sub_pages(self, page: TiffPage) -> tuple[TiffPage, ...]:
        """Return the directories that the SubIFDs tag of `page` points to."""
        return tuple(self._read_directory(offset)[0] for offset in page.integers(TagCode.SUB_IFDS) if offset)


class TiffPage:
    """One directory of a TIFF file."""

    __slots__ = ("_fields", "_structure", "offset")

    def __init__(self, structure: TiffStructure, offset: int, fields: Mapping[int, _Field]) -> None:
        self._structure = structure
        self.offset = offset
        self._fields = fields

    def __contains__(self, code: int) -> bool:
        return code in self._fields

    def values(self, code: TagCode) -> NDArray[np.generic]:
        """Return all values of a tag, in machine byte order; rationals are (count, 2); empty if it is absent.

        Raises
        ------
        CorruptSourceError
            If the values lie past the end of the file.
        """
        field = self._fields.get(code)
        if field is None:
            return np.empty(0, np.uint64)
        kind = np.dtype(self._structure.byte_order + _FIELD_TYPES[field.field_type])
        data = field.value or self._structure.read(field.offset, field.size)
        array = np.frombuffer(data, kind).astype(kind.newbyteorder("="))
        return array.reshape(-1, 2) if field.field_type in _RATIONALS else array

    def integers(self, code: TagCode) -> list[int]:
        """Return all values of an integer tag as a list; empty if it is absent."""
        values = self.values(code)
        if values.ndim != 1 or values.dtype.kind not in "ui":
            raise CorruptSourceError(f"TIFF tag {int(code)} holds no integers", byte_offset=self.offset)
        result: list[int] = values.tolist()
        return result

    def integer(self, code: TagCode, default: int) -> int:
        """Return the first value of an integer tag."""
        values = self.integers(code)
        return values[0] if values else default

    def data(self, code: TagCode) -> bytes:
        """Return the bytes of a tag; empty if it is absent."""
        return self.values(code).tobytes()

    def text(self, code: TagCode) -> str:
        """Return the text of a tag without its closing NUL; bytes that are no UTF-8 are read as Latin-1."""
        data = self.data(code).split(b"\0", 1)[0]
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            return data.decode("latin-1")

    def rational(self, code: TagCode) -> float | None:
        """Return the first value of a rational or real tag; None if it is absent or its denominator is 0."""
        values = self.values(code)
        if not values.size:
            return None
        if values.ndim == 1:
            return float(values.item(0))
        numerator, denominator = values[0].tolist()
        return float(numerator / denominator) if denominator else None

    @property
    def rows(self) -> int:
        """ImageLength."""
        return self.integer(TagCode.IMAGE_LENGTH, 0)

    @property
    def columns(self) -> int:
        """ImageWidth."""
        return self.integer(TagCode.IMAGE_WIDTH, 0)

    @property
    def is_tiled(self) -> bool:
        """Whether pixels are stored in tiles, not strips."""
        return TagCode.TILE_WIDTH in self

    @property
    def segment_rows(self) -> int:
        """Rows of one tile or strip."""
        if self.is_tiled:
            return self.integer(TagCode.TILE_LENGTH, 0)
        return min(self.integer(TagCode.ROWS_PER_STRIP, self.rows), self.rows)

    @property
    def segment_columns(self) -> int:
        """Columns of one tile or strip."""
        return self.integer(TagCode.TILE_WIDTH, 0) if self.is_tiled else self.columns

    @property
    def compression(self) -> int:
        """Value of the Compression tag."""
        return self.integer(TagCode.COMPRESSION, Compression.NONE)

    @property
    def photometric(self) -> int:
        """Value of the PhotometricInterpretation tag, -1 if it is absent."""
        return self.integer(TagCode.PHOTOMETRIC_INTERPRETATION, -1)

    @property
    def description(self) -> str:
        """Text of the ImageDescription tag."""
        return self.text(TagCode.IMAGE_DESCRIPTION)

    def segments(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Return the file offsets and byte counts of all tiles or strips, as many as the image needs.

        Raises
        ------
        CorruptSourceError
            If the sizes make no image, or there are fewer offsets or counts than tiles.
        """
        rows, columns, height, width = self.rows, self.columns, self.segment_rows, self.segment_columns
        if min(rows, columns, height, width) < 1 or max(height, width) > 1 << 20:
            raise CorruptSourceError(
                f"TIFF page of {rows} x {columns} pixels in pieces of {height} x {width}", byte_offset=self.offset
            )
        wanted = -(-rows // height) * -(-columns // width)
        if self.integer(TagCode.PLANAR_CONFIGURATION, 1) == 2:
            wanted *= self.integer(TagCode.SAMPLES_PER_PIXEL, 1)
        tags = (
            (TagCode.TILE_OFFSETS, TagCode.TILE_BYTE_COUNTS)
            if self.is_tiled
            else (TagCode.STRIP_OFFSETS, TagCode.STRIP_BYTE_COUNTS)
        )
        arrays = [self.values(tag) for tag in tags]
        if min(array.size for array in arrays) < wanted or any(
            array.dtype.kind != "u" or array.ndim > 1 for array in arrays
        ):
            raise CorruptSourceError(
                f"{wanted} tiles expected, {min(array.size for array in arrays)} listed", byte_offset=self.offset
            )
        offsets, counts = (array[:wanted].astype(np.uint64) for array in arrays)
        return offsets, counts
