"""Look at one instance: its header in memory, its frames by offset."""

from __future__ import annotations

import struct
from array import array
from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import cycle, islice, product
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from pydicom import dcmread
from pydicom.uid import UID

from coverslip.errors import CorruptSourceError
from coverslip.tiler.codecs.base import FrameDecoder, FrameFormat, Pixels
from coverslip.tiler.grid import TileGrid
from coverslip.validators.codestream_header import HEAD_BYTES, CodestreamHeaders, header_end
from coverslip.validators.stored_file import LocalFile, StoredFile, open_stream

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileMetaDataset

__all__ = ["WSI_STORAGE", "InstanceView", "Items", "Tally"]

WSI_STORAGE = "1.2.840.10008.5.1.4.1.1.77.1.6"

_ITEM = b"\xfe\xff\x00\xe0"
_SEQUENCE_END = b"\xfe\xff\xdd\xe0"
_ITEM_HEADER = 8
_TAIL = 3
_LONG_HEAD_BYTES = 1 << 20
_RUN_BYTES = 1 << 18
_PIXEL_DATA_TAGS = ((0x7FE0, 0x0010), (0x7FE0, 0x0008), (0x7FE0, 0x0009))

# Decoders are made for one transfer syntax of a family.
_DECODED_AS = {
    "1.2.840.10008.1.2": "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.4.81": "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.202": "1.2.840.10008.1.2.4.201",
}
_DECODABLE = frozenset(
    f"1.2.840.10008.1.2{suffix}" for suffix in (".1", ".4.50", ".4.51", ".4.80", ".4.90", ".4.91", ".4.201", ".4.203")
)


@dataclass(slots=True)
class Tally:
    """Counts what is read and decoded, in any thread."""

    frames_decoded: int = 0
    bytes_read: int = 0
    _lock: Lock = field(default_factory=Lock, repr=False, compare=False)

    def add(self, *, frames_decoded: int = 0, bytes_read: int = 0) -> None:
        """Count."""
        with self._lock:
            self.frames_decoded += frames_decoded
            self.bytes_read += bytes_read


@dataclass(frozen=True, slots=True)
class Items:
    """The items of encapsulated pixel data, without the Basic Offset Table.

    Parameters
    ----------
    positions, lengths : array
        Of the items' headers in the file, and of their values as the headers state them.
    headers : CodestreamHeaders
        With which the items' values begin.
    tails : bytes
        The last three bytes before the end of each item.
    basic_offset_table : bytes
    end : int
        Where the file goes on after the sequence delimiter, or where the items stop being items.
    problem : str
        Why the walk ended before a sequence delimiter, if it did.
    """

    positions: array[int]
    lengths: array[int]
    headers: CodestreamHeaders
    tails: bytes
    basic_offset_table: bytes
    end: int
    problem: str = ""


class InstanceView:
    """One Part 10 file: its header in memory, its pixel data where they are. Reading is safe in any thread.

    Elements whose values cannot be read are taken out of `header`, and told by `unreadable`.

    Parameters
    ----------
    file : StoredFile or Path

    Raises
    ------
    StoreError
        If the file cannot be read.
    InvalidDicomError, EOFError, ValueError and others of pydicom
        If it is no DICOM file, or its header is damaged.
    """

    def __init__(self, file: StoredFile | Path, tally: Tally | None = None) -> None:
        self.file: StoredFile = LocalFile(file) if isinstance(file, Path) else file
        self.tally = tally or Tally()
        self.size = self.file.size
        with open_stream(self.file) as stream:
            self.header: Dataset = dcmread(stream, stop_before_pixels=True)
            self.header_end = stream.tell()
        self.unreadable = list(_remove_unreadable(self.header))
        self.file_meta: FileMetaDataset = self.header.file_meta
        self.preamble: bytes = self.header.preamble or b""

    # What the header says, with defaults that let a check go on where another one complains.

    @property
    def name(self) -> str:
        """File name."""
        return self.file.name

    @cached_property
    def transfer_syntax_uid(self) -> str:
        """Empty if absent."""
        return str(self.file_meta.get("TransferSyntaxUID", ""))

    @cached_property
    def encapsulated(self) -> bool:
        """Whether frames are items."""
        syntax = UID(self.transfer_syntax_uid)
        return syntax.is_transfer_syntax and syntax.is_encapsulated

    @property
    def is_wsi(self) -> bool:
        """Whether this is a VL Whole Slide Microscopy Image."""
        return str(self.header.get("SOPClassUID", "")) == WSI_STORAGE

    @property
    def flavor(self) -> str:
        """VOLUME, THUMBNAIL, LABEL, OVERVIEW or what else stands in the third value of Image Type."""
        image_type = self.header.get("ImageType") or []
        return str(image_type[2]) if len(image_type) > 2 and not isinstance(image_type, str) else ""

    def number(self, keyword: str, default: int = 0) -> int:
        """Return an integer attribute, or `default` if it is absent, empty or no number."""
        try:
            return int(self.header.get(keyword, default))
        except (TypeError, ValueError):
            return default

    @cached_property
    def number_of_frames(self) -> int:
        """As stated."""
        return max(1, self.number("NumberOfFrames", 1))

    @cached_property
    def matrix_size(self) -> tuple[int, int]:
        """(rows, columns) of the Total Pixel Matrix."""
        return self.number("TotalPixelMatrixRows"), self.number("TotalPixelMatrixColumns")

    @cached_property
    def tile_size(self) -> tuple[int, int]:
        """(rows, columns) of every frame."""
        return self.number("Rows"), self.number("Columns")

    @cached_property
    def pixel_spacing_mm(self) -> tuple[float, float] | None:
        """(row, column), of the shared functional groups."""
        try:
            measures = self.header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
            row, column = map(float, measures.PixelSpacing)
        except (AttributeError, IndexError, TypeError, ValueError):
            return None
        return row, column

    @cached_property
    def optical_path_identifiers(self) -> tuple[str, ...]:
        """In the order of the Optical Path Sequence."""
        paths = self.header.get("OpticalPathSequence") or ()
        return tuple(str(item.get("OpticalPathIdentifier", "")) for item in paths)

    @cached_property
    def decoded_frame_bytes(self) -> int:
        """Of one frame: Rows x Columns x Samples per Pixel x Bits Allocated / 8."""
        rows, columns = self.tile_size
        return rows * columns * self.number("SamplesPerPixel", 1) * self.number("BitsAllocated", 8) // 8

    def grid(self) -> TileGrid | None:
        """Return where frames lie if the dimension organization is TILED_FULL and its sizes make sense."""
        if self.header.get("DimensionOrganizationType") != "TILED_FULL":
            return None
        planes = max(1, self.number("TotalPixelMatrixFocalPlanes", 1))
        paths = max(1, self.number("NumberOfOpticalPaths", len(self.optical_path_identifiers)))
        try:
            return TileGrid(*self.matrix_size, *self.tile_size, planes, paths)
        except ValueError:
            return None

    def place(self, frame_index: int | None = None) -> str:
        """Return where a finding is: the file, and the frame by its number from 1."""
        return self.name if frame_index is None else f"{self.name}: frame {frame_index + 1}"

    # The pixel data.

    def pread(self, length: int, position: int) -> bytes:
        """Return bytes of the file, fewer at its end.

        Raises
        ------
        StoreError
            If the file cannot be read.
        """
        data = self.file.read(position, length)
        self.tally.add(bytes_read=len(data))
        return data

    @cached_property
    def pixel_element(self) -> tuple[int, int] | None:
        """(position of the value, stated length) of the pixel data, None if the header is followed by none."""
        if self.transfer_syntax_uid == "1.2.840.10008.1.2":
            group, element, length = struct.unpack("<HHI", self.pread(8, self.header_end).ljust(8, b"\0"))
            size = 8
        else:
            head = self.pread(12, self.header_end).ljust(12, b"\0")
            group, element, _vr, _zero, length = struct.unpack("<HH2sHI", head)
            size = 12
        return (self.header_end + size, length) if (group, element) in _PIXEL_DATA_TAGS else None

    @cached_property
    def items(self) -> Items:
        """The items of encapsulated pixel data, found by walking from one to the next.

        What lies around each border of two items is read at once: the end of one, the header and beginning of the next.
        """
        positions, lengths, tails = array("Q"), array("Q"), bytearray()
        headers = CodestreamHeaders()
        problem, table = "", b""
        element = self.pixel_element
        position = element[0] if element else self.size
        while True:
            piece = self.pread(_TAIL + _ITEM_HEADER + HEAD_BYTES, position - _TAIL)
            if positions:
                tails += piece[:_TAIL]
            head = piece[_TAIL:]
            if len(head) < _ITEM_HEADER:
                problem = "pixel data end without a sequence delimiter"
            elif not head.startswith((_ITEM, _SEQUENCE_END)):
                problem = "neither an item nor the sequence delimiter"
            if problem or head.startswith(_SEQUENCE_END):
                break
            length = int.from_bytes(head[4:_ITEM_HEADER], "little")
            if positions:
                start = head[_ITEM_HEADER : _ITEM_HEADER + length]
                whole = headers.has_last(start)
                headers.add(start if whole else self._head(start, position + _ITEM_HEADER, length))
            else:
                table = self.pread(min(length, 8 * self.number_of_frames + 8), position + _ITEM_HEADER)
            positions.append(position)
            lengths.append(length)
            position += _ITEM_HEADER + length
        if problem:
            problem = f"byte offset {position}: {problem}"
        end = position if problem else position + _ITEM_HEADER
        return Items(positions[1:], lengths[1:], headers, bytes(tails[_TAIL:]), table, end, problem)

    def _head(self, head: bytes, position: int, length: int) -> bytes:
        """Return the first bytes of an item, more of them if its header goes on."""
        if len(head) < min(length, HEAD_BYTES) or length <= HEAD_BYTES or header_end(head) is not None:
            return head
        return self.pread(min(length, _LONG_HEAD_BYTES), position)

    def frame_headers(self) -> Iterator[tuple[bytes, Sequence[int]]]:
        """Yield each different codestream header of the frames that are whole, with the 0-based frames that have it.

        Headers that are very long, or above some number of different ones, come one by one with the frame's first
        bytes. Frames of no bytes have none.

        Raises
        ------
        CorruptSourceError
            If items and frames cannot be matched.
        """
        items = self.items
        if len(items.positions) == self.number_of_frames:
            numbers = np.asarray(items.headers.numbers).copy()
        else:
            firsts = [span.start if span else 0 for span in self.fragments]
            numbers = np.asarray(items.headers.numbers)[firsts]
        whole = self.whole_frames
        if len(whole) < len(numbers):
            numbers[[index for index in range(len(numbers)) if index not in whole]] = -2
        for number in dict.fromkeys(numbers[numbers >= 0].tolist()):
            yield items.headers.kept[number], np.flatnonzero(numbers == number).tolist()
        for index in np.flatnonzero(numbers == -1).tolist():
            yield self.read_frame(index, _LONG_HEAD_BYTES), [index]

    @cached_property
    def offset_table(self) -> array[int] | None:
        """Offsets of the frames from the first item, of the Extended or Basic Offset Table; None if there is none."""
        extended = self.header.get("ExtendedOffsetTable")
        if extended:
            return array("Q", extended[: len(extended) // 8 * 8])
        basic = self.items.basic_offset_table
        return array("Q", array("I", basic[: len(basic) // 4 * 4])) if basic else None

    @cached_property
    def fragments(self) -> list[range]:
        """Which items make up each frame.

        Raises
        ------
        CorruptSourceError
            If items and frames cannot be matched.
        """
        count, items = self.number_of_frames, self.items
        if len(items.positions) == count:
            return [range(index, index + 1) for index in range(count)]
        if count == 1:
            return [range(len(items.positions))]
        table = self.offset_table
        if table is None or len(table) != count or not items.positions:
            raise CorruptSourceError(f"{len(items.positions)} items cannot be told apart into {count} frames")
        first = items.positions[0]
        index = {position - first: number for number, position in enumerate(items.positions)}
        try:
            starts = [index[offset] for offset in table]
        except KeyError:
            raise CorruptSourceError("the offset table points beside the items") from None
        return [range(*pair) for pair in zip(starts, [*starts[1:], len(items.positions)], strict=True)]

    def frame_span(self, frame_index: int) -> tuple[int, int]:
        """Return (position, bytes) of a frame in the file; of its first fragment if it has several.

        Raises
        ------
        CorruptSourceError
            If the frame cannot be found.
        """
        if self.encapsulated:
            fragments = self.fragments[frame_index]
            if not fragments:
                raise CorruptSourceError("no item", frame_index=frame_index)
            return self.items.positions[fragments[0]] + 8, self.items.lengths[fragments[0]]
        element = self.pixel_element
        if element is None:
            raise CorruptSourceError("no pixel data", frame_index=frame_index)
        return element[0] + frame_index * self.decoded_frame_bytes, self.decoded_frame_bytes

    def stored_bytes(self, frame_index: int) -> int:
        """Return how many bytes a frame takes, 0 if it cannot be found."""
        if not self.encapsulated:
            return self.decoded_frame_bytes
        try:
            return sum(self.items.lengths[at] for at in self.fragments[frame_index])
        except (CorruptSourceError, IndexError):
            return 0

    def frame_tail(self, frame_index: int) -> bytes:
        """Return the last bytes, at most three, of a frame that is an item or several."""
        last = self.fragments[frame_index][-1]
        tail = self.items.tails[_TAIL * last : _TAIL * (last + 1)]
        return tail[-min(_TAIL, self.items.lengths[last]) :] if self.items.lengths[last] else b""

    @cached_property
    def whole_frames(self) -> range | set[int]:
        """The frames that can be found, lie in the file and are of some bytes; of others the rules of items tell."""
        if not self.encapsulated:
            element = self.pixel_element
            room = self.size - element[0] if element else 0
            return range(min(self.number_of_frames, room // max(1, self.decoded_frame_bytes)))
        items, count = self.items, self.number_of_frames
        ends = np.asarray(items.positions) + np.asarray(items.lengths) + _ITEM_HEADER
        sound = (ends <= self.size) & (np.asarray(items.lengths) > 0)
        if len(sound) == count and sound.all():
            return range(count)
        try:
            fragments = self.fragments
        except CorruptSourceError:
            return range(0)
        return {index for index, span in enumerate(fragments) if span and all(sound[at] for at in span)}

    def read_frame(self, frame_index: int, most_bytes: int | None = None) -> bytes:
        """Return the stored bytes of a frame, with padding; `most_bytes` reads only its beginning.

        Raises
        ------
        CorruptSourceError
            If the frame cannot be found, or the file ends within it.
        """
        if self.encapsulated:
            items, fragments = self.items, self.fragments[frame_index]
            spans = [(items.positions[at] + _ITEM_HEADER, items.lengths[at]) for at in fragments]
        else:
            spans = [self.frame_span(frame_index)]
        parts, left = [], most_bytes if most_bytes is not None else sum(length for _, length in spans)
        for position, length in spans:
            wanted = min(length, left)
            part = self.pread(wanted, position)
            if len(part) < wanted:
                raise CorruptSourceError(f"file ends {wanted - len(part)} bytes early", frame_index=frame_index)
            parts.append(part)
            left -= wanted
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def iter_frames(self) -> Iterator[bytes | CorruptSourceError]:
        """Yield the stored bytes of all frames in order, with padding, or why one cannot be read.

        Items that follow each other are read many at a time.
        """
        index = 0
        while index < self.number_of_frames:
            run = self._read_run(index)
            yield from run
            index += len(run)
            if not run:
                try:
                    yield self.read_frame(index)
                except CorruptSourceError as error:
                    yield error
                index += 1

    def _read_run(self, first: int) -> Sequence[bytes]:
        """Return frames from `first` on that are items one after the other; none where they are something else."""
        if not self.encapsulated or len(self.items.positions) != self.number_of_frames:
            return ()
        positions, lengths = self.items.positions, self.items.lengths
        start = positions[first]
        # Items were found by walking from one to the next, so nothing lies between them.
        stop = max(first + 1, bisect(positions, start + _RUN_BYTES, first))
        end = positions[stop - 1] + _ITEM_HEADER + lengths[stop - 1]
        data = self.pread(end - start, start)
        if len(data) < end - start:
            return ()
        return [
            data[position - start + _ITEM_HEADER : position - start + _ITEM_HEADER + length]
            for position, length in zip(positions[first:stop], lengths[first:stop], strict=True)
        ]

    @cached_property
    def frame_format(self) -> FrameFormat:
        """What the frames are, as the header says."""
        return FrameFormat(
            _DECODED_AS.get(self.transfer_syntax_uid, self.transfer_syntax_uid),
            str(self.header.get("PhotometricInterpretation", "")),
            self.number("SamplesPerPixel", 1),
            self.number("BitsStored", 8),
        )

    @property
    def decodable(self) -> bool:
        """Whether there is a decoder for the transfer syntax."""
        return self.frame_format.transfer_syntax_uid in _DECODABLE

    @cached_property
    def _decoder(self) -> FrameDecoder:
        from coverslip.tiler.codecs import make_decoder

        rows, columns = self.tile_size
        return make_decoder(self.frame_format, rows=rows, columns=columns)

    def decode(self, frame_index: int) -> Pixels:
        """Return the pixels of a frame, (rows, columns, samples), colour as RGB.

        Raises
        ------
        CorruptSourceError
            If the frame cannot be found or decoded, or has another size.
        """
        frame = self.read_frame(frame_index)
        self.tally.add(frames_decoded=1)
        return self._decoder.decode(frame)

    def decode_half(self, frame_index: int) -> Pixels | None:
        """Return a frame at half its scale, as `decode` does; None if its coding does not make that cheaper.

        All that is stored is read, so what `decode` finds damaged, this does too.
        """
        pixels = self._decoder.decode_half(self.read_frame(frame_index))
        if pixels is not None:
            self.tally.add(frames_decoded=1)
        return pixels

    @cached_property
    def frame_positions(self) -> list[tuple[int, int, str, float]]:
        """0-based (row, column) in the matrix, optical path and focal plane of each frame, in pixels and mm.

        Raises
        ------
        CorruptSourceError
            If the header does not say.
        """
        offset = self.number("ConcatenationFrameOffsetNumber")
        grid = self.grid()
        if grid is not None:
            paths = self.optical_path_identifiers or ("",)
            rows, columns = self.tile_size
            cells = product(
                [paths[min(path, len(paths) - 1)] for path in range(grid.optical_paths)],
                [float(plane) for plane in range(grid.focal_planes)],
                range(0, grid.tile_rows * rows, rows),
                range(0, grid.tile_columns * columns, columns),
            )
            stated = islice(cycle(cells), offset, offset + self.number_of_frames)
            return [(row, column, path, plane) for path, plane, row, column in stated]
        return [self._sparse_position(item) for item in self.header.get("PerFrameFunctionalGroupsSequence") or ()]

    def _sparse_position(self, item: Dataset) -> tuple[int, int, str, float]:
        shared = (self.header.get("SharedFunctionalGroupsSequence") or [None])[0]
        try:
            plane = item.PlanePositionSlideSequence[0]
            row, column = plane.RowPositionInTotalImagePixelMatrix, plane.ColumnPositionInTotalImagePixelMatrix
            path = item.get("OpticalPathIdentificationSequence") or (
                shared.get("OpticalPathIdentificationSequence") if shared is not None else None
            )
            identifier = str(path[0].OpticalPathIdentifier) if path else ""
            return int(row) - 1, int(column) - 1, identifier, float(plane.get("ZOffsetInSlideCoordinateSystem") or 0)
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            raise CorruptSourceError("a frame without its position in the matrix") from error


def _remove_unreadable(ds: Dataset) -> Iterator[str]:
    """Take the elements out that pydicom cannot convert, and yield their tags; per-frame items are left as they are."""
    for tag in list(ds.keys()):
        try:
            element = ds[tag]
        except Exception:  # noqa: BLE001 - whatever a damaged value makes it stumble over
            del ds[tag]
            yield str(tag)
            continue
        if element.VR == "SQ" and element.keyword != "PerFrameFunctionalGroupsSequence":
            for item in element.value:
                yield from (f"{element.keyword}{element.tag}/{inner}" for inner in _remove_unreadable(item))
