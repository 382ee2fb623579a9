"""Stream frames into one Part 10 file in memory that does not grow with the image."""

from __future__ import annotations

import hashlib
import os
import struct
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from coverslip.errors import StoreError, ValidationFailedError
from coverslip.tiler.codecs.base import FrameFormat

__all__ = ["BackgroundMd5", "HeaderWriter", "InstanceWriter", "WrittenInstance", "write_all"]

HeaderWriter = Callable[[float | None], bytes]
"""Gives all that stands before the pixel data, for a lossy compression ratio; of one length for every ratio."""

_ITEM = struct.Struct("<HHI")
_SEQUENCE_END = _ITEM.pack(0xFFFE, 0xE0DD, 0)
_LARGEST_BASIC_OFFSET = 2**32 - 1
_LARGEST_NATIVE = 2**32 - 2
_COPY_BYTES = 16 << 20
_HASHED_BYTES = 1 << 20
_HASHED_BEHIND = 16 << 20
"""Bytes given to be hashed in the background that may wait."""


@dataclass(frozen=True, slots=True)
class WrittenInstance:
    """One finished file.

    Parameters
    ----------
    path : Path
    number_of_frames, size_bytes : int
    frame_bytes : int
        Encoded bytes of all frames, without padding.
    md5 : str
        Of the file.
    offset_table : str
        ``"bot"``, ``"eot"`` or ``"none"``.
    """

    path: Path
    number_of_frames: int
    size_bytes: int
    frame_bytes: int
    md5: str
    offset_table: str


class InstanceWriter:
    """Append frames in order to one Part 10 file.

    The header and the offset table are reserved first and filled in by `finish`, because the compression ratio and the
    offsets are known only then. Encapsulated frames take one fragment each (PS3.5 A.4), with a Basic Offset Table
    while its 32-bit offsets reach, else an Extended Offset Table (PS3.3 C.7.6.3.1.8). Used as a context manager: left
    without `finish`, the file is removed.

    Parameters
    ----------
    path : Path
        Must not exist yet.
    write_header : HeaderWriter
    frame_format : FrameFormat
    number_of_frames : int
    decoded_bytes_per_frame : int
        Of one full tile, for the compression ratio.
    offset_table : str
        ``"auto"``, ``"bot"``, ``"eot"`` or ``"none"``.
    expected_lengths : sequence of int, optional
        Bytes of each frame, if they can be foreseen: then the header is final from the start, and the file is hashed
        while it is written. Any that turn out otherwise only cost the time of reading the file again.
    """

    def __init__(
        self,
        path: Path,
        write_header: HeaderWriter,
        frame_format: FrameFormat,
        number_of_frames: int,
        decoded_bytes_per_frame: int,
        offset_table: str = "auto",
        *,
        expected_lengths: Sequence[int] | None = None,
    ) -> None:
        self.path = path
        self._write_header = write_header
        self._format = frame_format
        self._number_of_frames = number_of_frames
        self._decoded_bytes = number_of_frames * decoded_bytes_per_frame
        self._wanted_table = offset_table
        if not frame_format.encapsulated and self._decoded_bytes > _LARGEST_NATIVE:
            raise StoreError(
                f"uncompressed pixels of {self._decoded_bytes} bytes do not fit one instance"
                f" (at most {_LARGEST_NATIVE}): choose a compressed codec, e.g. --codec jpeg2000:lossless"
            )
        self._table = "none" if not frame_format.encapsulated else "bot" if offset_table == "auto" else offset_table
        self._lengths = array("Q")
        self._md5: BackgroundMd5 | None = None
        self._finished = False
        # Exclusive creation: two runs never write into one file.
        self._file: BinaryIO = open(path, "xb+", buffering=0)  # noqa: SIM115 - closed by finish or __exit__
        expected = array("Q", expected_lengths or bytes(8 * number_of_frames))
        if expected_lengths is not None and offset_table == "auto" and self._table == "bot":
            self._table = "bot" if _offsets(expected).item(-1) <= _LARGEST_BASIC_OFFSET else "eot"
        self._prefix_written = self._prefix(self._ratio(expected) if expected_lengths is not None else 0.0, expected)
        if expected_lengths is not None:
            self._md5 = BackgroundMd5()
        self._write(self._prefix_written)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._finished:
            if self._md5 is not None:
                self._md5.hexdigest()
            self._file.close()
            self.path.unlink(missing_ok=True)

    @property
    def complete(self) -> bool:
        """Whether all frames have been written."""
        return len(self._lengths) == self._number_of_frames

    def write_frames(self, frames: Sequence[bytes]) -> None:
        """Append consecutive frames."""
        lengths = list(map(len, frames))
        self._lengths.extend(lengths)
        if not self._format.encapsulated:
            self._write(b"".join(frames))
            return
        # All Python that is done for each frame holds up the threads that make frames.
        heads = [_ITEM.pack(0xFFFE, 0xE000, length + length % 2) for length in lengths]
        pads = [b"\0" if length % 2 else b"" for length in lengths]
        self._write(b"".join(chain.from_iterable(zip(heads, frames, pads, strict=True))))

    def finish(self) -> WrittenInstance:
        """Fill in header and offset table, close the file and say what was written.

        Raises
        ------
        ValidationFailedError
            If frames are missing or too many.
        """
        if not self.complete:
            raise ValidationFailedError(f"{len(self._lengths)} frames written, expected {self._number_of_frames}")
        frame_bytes = sum(self._lengths)
        if self._format.encapsulated:
            self._write(_SEQUENCE_END)
        elif frame_bytes % 2:
            self._write(b"\0")
        ratio = self._ratio(self._lengths)
        if self._table == "bot" and self._last_offset() > _LARGEST_BASIC_OFFSET:
            if self._wanted_table == "bot":
                raise StoreError("frames reach past 4 GiB, too far for a Basic Offset Table: use --offset-table eot")
            self._move_to_extended(ratio)
        prefix = self._prefix(ratio, self._lengths)
        if len(prefix) != len(self._prefix_written):
            raise ValidationFailedError(f"header of {len(prefix)} bytes, {len(self._prefix_written)} were reserved")
        md5 = self._md5.hexdigest() if self._md5 is not None else None
        if prefix != self._prefix_written:
            md5 = None
            self._file.seek(0)
            write_all(self._file, prefix)
        size = self._file.seek(0, os.SEEK_END)
        self._file.close()
        self._finished = True
        return WrittenInstance(
            self.path, len(self._lengths), size, frame_bytes, md5 or md5_of_file(self.path), self._table
        )

    def _write(self, data: bytes) -> None:
        write_all(self._file, data)
        if self._md5 is not None:
            self._md5.update(data)

    def _ratio(self, lengths: array[int]) -> float:
        return self._decoded_bytes / sum(lengths)

    def _last_offset(self) -> int:
        """Return the offset of the last item from the first."""
        return _offsets(self._lengths).item(-1)

    def _prefix(self, ratio: float, lengths: array[int]) -> bytes:
        """Return everything before the first frame."""
        header = self._write_header(ratio if self._format.lossy_method else None)
        if not self._format.encapsulated:
            length = self._decoded_bytes + self._decoded_bytes % 2
            vr = b"OW" if self._format.bits_allocated > 8 else b"OB"
            return header + struct.pack("<HH2sHI", 0x7FE0, 0x0010, vr, 0, length)
        pixel_data = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)
        if self._table == "bot":
            table = _offsets(lengths).astype("<u4").tobytes()  # cut to 32 bits: too long ones never stay
            return header + pixel_data + _ITEM.pack(0xFFFE, 0xE000, len(table)) + table
        empty_table = _ITEM.pack(0xFFFE, 0xE000, 0)
        if self._table == "none":
            return header + pixel_data + empty_table
        offsets = _offsets(lengths).astype("<u8").tobytes()
        return b"".join(
            (
                header,
                struct.pack("<HH2sHI", 0x7FE0, 0x0001, b"OV", 0, len(offsets)),
                offsets,
                struct.pack("<HH2sHI", 0x7FE0, 0x0002, b"OV", 0, len(offsets)),
                _padded(lengths).astype("<u8").tobytes(),
                pixel_data,
                empty_table,
            )
        )

    def _move_to_extended(self, ratio: float) -> None:
        """Shift the frames to make room for an Extended Offset Table, from the end backwards."""
        self._table = "eot"
        moved = self._prefix(ratio, self._lengths)
        old, new = len(self._prefix_written), len(moved)
        position = self._file.seek(0, os.SEEK_END)
        while position > old:
            start = max(old, position - _COPY_BYTES)
            self._file.seek(start)
            data = self._file.read(position - start)
            self._file.seek(start + new - old)
            write_all(self._file, data)
            position = start
        # Zeros, so that the final header is seen to differ from what is there.
        self._prefix_written = bytes(new)


class BackgroundMd5:
    """An MD5 computed in a thread of its own, a few chunks behind what it is given."""

    def __init__(self) -> None:
        self._digest = hashlib.md5(usedforsecurity=False)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="coverslip-md5")
        self._pending: deque[tuple[int, Future[None]]] = deque()
        self._behind = 0

    def update(self, data: bytes) -> None:
        """Add bytes; waits when too many are waiting already."""
        while self._pending and (self._pending[0][1].done() or self._behind + len(data) > _HASHED_BEHIND):
            size, update = self._pending.popleft()
            update.result()
            self._behind -= size
        self._pending.append((len(data), self._executor.submit(self._digest.update, data)))
        self._behind += len(data)

    def hexdigest(self) -> str:
        """Return the digest of all that was given, and end the thread."""
        self._executor.shutdown()
        return self._digest.hexdigest()


def md5_of_file(path: Path) -> str:
    """Return the MD5 of a file, as stores and IDC's tables keep it."""
    digest = hashlib.md5(usedforsecurity=False)
    view = memoryview(bytearray(_HASHED_BYTES))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(view):
            digest.update(view[:count])
    return digest.hexdigest()


def _padded(lengths: array[int]) -> NDArray[np.uint64]:
    """Return each item's length: of its frame, made even."""
    frames = np.frombuffer(lengths, np.uint64)
    return frames + frames % 2


def _offsets(lengths: array[int]) -> NDArray[np.uint64]:
    """Return each item's offset from the first item (PS3.5 A.4)."""
    items = _padded(lengths) + np.uint64(8)
    return np.cumsum(items, dtype=np.uint64) - items


def write_all(file: BinaryIO, data: bytes) -> None:
    """Write to an unbuffered file whatever the number of bytes it takes at a time."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
