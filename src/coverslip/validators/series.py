"""Look at the instances of a series: headers in memory, frames by offset."""

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID

from coverslip.errors import CorruptSourceError, StoreError
from coverslip.tiler.codecs.base import FrameDecoder, FrameFormat, Pixels
from coverslip.tiler.grid import TileGrid
from coverslip.validators.report import Finding
from coverslip.validators.rules import finding

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileMetaDataset

__all__ = ["WSI_STORAGE", "InstanceView", "Items", "SeriesView", "Tally", "open_series"]

WSI_STORAGE = "1.2.840.10008.5.1.4.1.1.77.1.6"

_ITEM = b"\xfe\xff\x00\xe0"
_SEQUENCE_END = b"\xfe\xff\xdd\xe0"
_UNDEFINED = 0xFFFFFFFF
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
    """Counts what is read and decoded."""

    frames_decoded: int = 0
    bytes_read: int = 0


@dataclass(frozen=True, slots=True)
class Items:
    """The items of encapsulated pixel data, without the Basic Offset Table.

    Parameters
    ----------
    positions, lengths : array
        Of the items' headers in the file, and of their values as the headers state them.
    basic_offset_table : bytes
    end : int
        Where the file goes on after the sequence delimiter, or where the items stop being items.
    problem : str
        Why the walk ended before a sequence delimiter, if it did.
    """

    positions: array[int]
    lengths: array[int]
    basic_offset_table: bytes
    end: int
    problem: str = ""


class InstanceView:
    """One Part 10 file: its header in memory, its pixel data on disk. Reading is safe in any thread.

    Elements whose values cannot be read are taken out of `header`, and told by `unreadable`.

    Parameters
    ----------
    path : Path

    Raises
    ------
    StoreError
        If the file cannot be read.
    InvalidDicomError, EOFError, ValueError and others of pydicom
        If it is no DICOM file, or its header is damaged.
    """

    def __init__(self, path: Path, tally: Tally | None = None) -> None:
        self.path = path
        self.tally = tally or Tally()
        try:
            with path.open("rb") as file:
                self.size = os.fstat(file.fileno()).st_size
                self.header: Dataset = dcmread(file, stop_before_pixels=True)
                self.header_end = file.tell()
        except OSError as error:
            raise StoreError(f"{path.name} cannot be read: {error.strerror}") from error
        self.unreadable = list(_remove_unreadable(self.header))
        self.file_meta: FileMetaDataset = self.header.file_meta
        self.preamble: bytes = self.header.preamble or b""

    # What the header says, with defaults that let a check go on where another one complains.

    @property
    def name(self) -> str:
        """File name."""
        return self.path.name

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
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
            try:
                data = os.pread(descriptor, length, position)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise StoreError(f"{self.name} cannot be read: {error.strerror}") from error
        self.tally.bytes_read += len(data)
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

    def iter_item_headers(self) -> Iterator[tuple[int, int]]:
        """Yield (position of the header, stated length) of every item, the Basic Offset Table first.

        Raises
        ------
        CorruptSourceError
            At what is neither an item nor the sequence delimiter, or lies past the end.
        """
        element = self.pixel_element
        position = element[0] if element else self.size
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            while True:
                head = os.pread(descriptor, 8, position)
                if len(head) < 8:
                    raise CorruptSourceError("pixel data end without a sequence delimiter", byte_offset=position)
                length = int.from_bytes(head[4:], "little")
                if head[:4] == _SEQUENCE_END:
                    return
                if head[:4] != _ITEM:
                    raise CorruptSourceError("neither an item nor the sequence delimiter", byte_offset=position)
                yield position, length
                position += 8 + length
        finally:
            os.close(descriptor)

    @cached_property
    def items(self) -> Items:
        """The items of encapsulated pixel data, found by walking from one to the next."""
        positions, lengths = array("Q"), array("Q")
        problem = ""
        try:
            for position, length in self.iter_item_headers():
                positions.append(position)
                lengths.append(length)
        except CorruptSourceError as error:
            problem = str(error)
        element = self.pixel_element
        end = positions[-1] + 8 + lengths[-1] if positions else element[0] if element else self.size
        table = self.pread(min(lengths[0], 8 * self.number_of_frames + 8), positions[0] + 8) if positions else b""
        return Items(positions[1:], lengths[1:], table, end if problem else end + 8, problem)

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

    def read_frame(self, frame_index: int, most_bytes: int | None = None) -> bytes:
        """Return the stored bytes of a frame, with padding; `most_bytes` reads only its beginning.

        Raises
        ------
        CorruptSourceError
            If the frame cannot be found, or the file ends within it.
        """
        if self.encapsulated:
            items = self.items
            spans = [(items.positions[at] + 8, items.lengths[at]) for at in self.fragments[frame_index]]
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
        return b"".join(parts)

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
        self.tally.frames_decoded += 1
        return self._decoder.decode(frame)

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
            found = []
            for index in range(offset, offset + self.number_of_frames):
                at = grid.address(index)
                path = paths[min(at.optical_path_index, len(paths) - 1)]
                found.append((at.row_index * rows, at.column_index * columns, path, float(at.focal_plane_index)))
            return found
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


@dataclass(slots=True)
class SeriesView:
    """All instances of one series, in the order of their paths.

    Parameters
    ----------
    series_instance_uid : str
    instances : list of InstanceView
        At least one.
    tally : Tally
    """

    series_instance_uid: str
    instances: list[InstanceView]
    tally: Tally = field(default_factory=Tally)

    @property
    def folder(self) -> Path:
        """Folder of the first instance."""
        return self.instances[0].path.parent

    @property
    def is_wsi(self) -> bool:
        """Whether any instance is a slide image."""
        return any(instance.is_wsi for instance in self.instances)

    @property
    def slide_images(self) -> list[InstanceView]:
        """The instances that are VL Whole Slide Microscopy Images."""
        return [instance for instance in self.instances if instance.is_wsi]

    @property
    def levels(self) -> list[list[InstanceView]]:
        """The VOLUME instances by size of their matrix, the largest first; several in one for channels and parts."""

        def area(instance: InstanceView) -> tuple[int, int, int]:
            rows, columns = instance.matrix_size
            return -rows * columns, -rows, -columns

        volumes = sorted((each for each in self.slide_images if each.flavor == "VOLUME"), key=area)
        return [list(group) for _size, group in groupby(volumes, key=area)]


def open_series(paths: Sequence[Path]) -> tuple[list[SeriesView], list[Finding]]:
    """Open DICOM files and folders of them, and group the instances by series.

    In folders, at any depth, files are taken whose name ends with ``.dcm`` and those that start as DICOM files do.

    Returns
    -------
    list of SeriesView
        In the order in which they are met.
    list of Finding
        Of files that cannot be read as DICOM.

    Raises
    ------
    StoreError
        If a path is not there, or there is nothing to validate.
    """
    series: dict[str, SeriesView] = {}
    unreadable = []
    for path in _files(paths):
        try:
            instance = InstanceView(path)
        except StoreError:
            raise
        except InvalidDicomError:
            unreadable.append(finding("part10.unreadable", "is no DICOM file", str(path)))
            continue
        except Exception as error:  # noqa: BLE001 - pydicom raises whatever a damaged header makes it stumble over
            unreadable.append(finding("part10.unreadable", f"header cannot be read: {type(error).__name__}", str(path)))
            continue
        uid = str(instance.header.get("SeriesInstanceUID", ""))
        view = series.setdefault(uid, SeriesView(uid, []))
        instance.tally = view.tally
        view.instances.append(instance)
    if not series and not unreadable:
        raise StoreError("no DICOM files found")
    return list(series.values()), unreadable


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


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    seen = set()
    for path in paths:
        if not path.exists():
            raise StoreError(f"{path} is not there")
        candidates = sorted(file for file in path.rglob("*") if _may_be_dicom(file)) if path.is_dir() else [path]
        for file in candidates:
            if (real := file.resolve()) not in seen:
                seen.add(real)
                yield file


def _may_be_dicom(path: Path) -> bool:
    if not path.is_file():
        return False
    if path.suffix.lower() == ".dcm":
        return True
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False
