"""Instances that are open: header, frame table and file, kept for those that were asked for last."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, cast

from coverslip.errors import CorruptSourceError, StoreError
from coverslip.server.frame_coding import encodable_syntaxes
from coverslip.server.frame_table import FrameTable, build_frame_table, unwrap_items
from coverslip.stores.base import ObjectStore
from coverslip.stores.quiet import no_pydicom_warnings
from coverslip.validators.instance import InstanceView
from coverslip.validators.stored_file import LocalFile

if TYPE_CHECKING:
    from coverslip.server.archive import IndexedInstance
    from coverslip.server.places import Places
    from coverslip.stores.dicomweb import DicomWebStore

__all__ = ["OpenInstance", "OpenInstances"]

_CHUNK = 1 << 20
_MOST_OPEN = 256
_MOST_FRAME_BYTES = 256 << 20
_FRAME_CACHE_BYTES = 64 << 20


class OpenInstance:
    """One instance whose header is in memory. Reading is safe in any thread.

    Attributes
    ----------
    indexed : IndexedInstance
    header : Dataset
        Without pixel data; not to be changed.
    transfer_syntax_uid : str
    etag : str
        Names these bytes: changes when the file does.
    """

    def __init__(self, indexed: IndexedInstance, places: Places) -> None:
        self.indexed = indexed
        self._places = places
        self._cached: OrderedDict[int, bytes] = OrderedDict()
        self._cached_bytes = 0
        self._lock = threading.Lock()
        file = places.open_file(indexed)
        self._view: InstanceView | None = None
        self._descriptor: int | None = None
        identity: tuple[object, ...]
        if file is None:
            store = places.store_of(indexed.location)
            self.header = store.read_header(places.stored(indexed))
            identity = (indexed.location, indexed.size_bytes)
        else:
            with no_pydicom_warnings():
                self._view = _read_view(file)
            self.header = self._view.header
            identity = (indexed.location, self._view.size)
            if isinstance(file, LocalFile):
                self._file = file  # keeps the descriptor open
                self._descriptor = file._open()  # noqa: SLF001 - for reads that must not wait
                status = os.fstat(self._descriptor)
                identity = (status.st_ino, status.st_size, status.st_mtime_ns)
        if str(self.header.get("SOPInstanceUID", "")) != indexed.sop_instance_uid:
            raise StoreError("the file holds another instance than the index says; index again")
        meta = getattr(self.header, "file_meta", None)
        told = meta.get("TransferSyntaxUID") if meta is not None else None
        self.transfer_syntax_uid = str(told or indexed.transfer_syntax_uid or "1.2.840.10008.1.2.1")
        self.etag = hashlib.sha256(repr((indexed.sop_instance_uid, *identity)).encode()).hexdigest()[:20]

    @property
    def view(self) -> InstanceView | None:
        """The file as bytes by offset; None where the store gives frames only."""
        return self._view

    @cached_property
    def frames(self) -> FrameTable | None:
        """Where frames lie; None without pixel data, or where the store finds them itself."""
        return build_frame_table(self._view) if self._view is not None else None

    @cached_property
    def number_of_frames(self) -> int:
        """Zero if there is no pixel data."""
        if self._view is None:
            has_pixels = "Rows" in self.header
            return int(self.header.get("NumberOfFrames") or 1) if has_pixels else 0
        return len(self.frames) if self.frames is not None else 0

    @cached_property
    def encodable_syntaxes(self) -> frozenset[str]:
        """Transfer syntaxes that frames can be given in besides the stored one."""
        return encodable_syntaxes(self.header, self.transfer_syntax_uid)

    def read_frame(self, index: int) -> bytes:
        """Return the stored bytes of a frame, with padding.

        Parameters
        ----------
        index : int
            0-based, of an existing frame.

        Raises
        ------
        CorruptSourceError, StoreError
        """
        if self._view is None:
            found = self._remembered(index)
            if found is not None:
                return found
            frames = cast("DicomWebStore", self._places.store_of(self.indexed.location))
            return self._remember(index, frames.read_frames(self._places.stored(self.indexed), [index + 1])[0])
        assert self.frames is not None
        if self._descriptor is None and (found := self._remembered(index)) is not None:
            return found
        start, end = self.frames.starts[index], self.frames.ends[index]
        if end - start > _MOST_FRAME_BYTES:
            raise CorruptSourceError(f"{end - start} bytes, more than a frame has", frame_index=index)
        if self._descriptor is None:  # straight from the store: its file reads on, and one at a time
            store = self._places.store_of(self.indexed.location)
            assert isinstance(store, ObjectStore)
            span = store.read_range(self._places.stored(self.indexed), start, end - start)
        else:
            span = self._view.file.read(start, end - start)
        if len(span) < end - start:
            raise CorruptSourceError("the file ends within the frame", frame_index=index)
        frame = unwrap_items(span) if self.frames.encapsulated else span
        return frame if self._descriptor is not None else self._remember(index, frame)

    def read_frame_at_once(self, index: int) -> bytes | None:
        """Return a frame if it can be had without waiting for a disk or network, else None."""
        table = self.__dict__.get("frames")
        if self._descriptor is None or table is None:
            return self._remembered(index)
        start = table.starts[index]
        size = table.ends[index] - start
        if size > _CHUNK:
            return None
        buffer = bytearray(size)
        try:
            if os.preadv(self._descriptor, [buffer], start, os.RWF_NOWAIT) != size:
                return None
        except OSError:  # not in the page cache, or a file system that cannot tell
            return None
        return unwrap_items(bytes(buffer)) if table.encapsulated else bytes(buffer)

    def _remembered(self, index: int) -> bytes | None:
        with self._lock:
            if index in self._cached:
                self._cached.move_to_end(index)
                return self._cached[index]
        return None

    def _remember(self, index: int, frame: bytes) -> bytes:
        """Keep a frame that came over a network."""
        with self._lock:
            if index not in self._cached and len(frame) <= _CHUNK:
                self._cached[index] = frame
                self._cached_bytes += len(frame)
            while self._cached_bytes > _FRAME_CACHE_BYTES // 8:
                self._cached_bytes -= len(self._cached.popitem(last=False)[1])
        return frame

    def iter_file(self) -> Iterator[bytes]:
        """Yield the Part 10 file in pieces; one of a DICOMweb store is fetched first."""
        if self._view is not None:
            for position in range(0, self._view.size, _CHUNK):
                yield self._view.file.read(position, min(_CHUNK, self._view.size - position))
            return
        with TemporaryDirectory(prefix="coverslip-") as folder:
            path = Path(folder, "instance.dcm")
            self._places.store_of(self.indexed.location).download(self._places.stored(self.indexed), path)
            with open(path, "rb") as file:
                while piece := file.read(_CHUNK):
                    yield piece

    @property
    def file_size(self) -> int | None:
        """Bytes of the file; None where the store does not tell."""
        return self._view.size if self._view is not None else None


class OpenInstances:
    """Opens instances once, and keeps those that were asked for last.

    Parameters
    ----------
    places : Places
    most : int
        That are kept open.
    """

    def __init__(self, places: Places, most: int = _MOST_OPEN) -> None:
        self._places = places
        self._most = most
        self._opened: OrderedDict[str, OpenInstance] = OrderedDict()
        self._opening: dict[str, Future[OpenInstance]] = {}
        self._lock = threading.Lock()

    def get_opened(self, sop_instance_uid: str) -> OpenInstance | None:
        """Return an instance that is open already."""
        found = self._opened.get(sop_instance_uid)
        if found is not None:
            with self._lock:
                if sop_instance_uid in self._opened:
                    self._opened.move_to_end(sop_instance_uid)
        return found

    def open(self, indexed: IndexedInstance) -> OpenInstance:
        """Return an instance, opened now if it is not yet; whoever asks meanwhile waits for the same.

        Raises
        ------
        StoreError, CorruptSourceError
        """
        uid = indexed.sop_instance_uid
        with self._lock:
            if uid in self._opened:
                self._opened.move_to_end(uid)
                return self._opened[uid]
            waited = self._opening.get(uid)
            mine = Future[OpenInstance]() if waited is None else None
            if mine is not None:
                self._opening[uid] = mine
        if mine is None:
            assert waited is not None
            return waited.result()
        try:
            opened = OpenInstance(indexed, self._places)
            assert opened.number_of_frames >= 0  # makes the table
        except BaseException as error:
            with self._lock:
                del self._opening[uid]
            mine.set_exception(error)
            raise
        with self._lock:
            del self._opening[uid]
            self._opened[uid] = opened
            while len(self._opened) > self._most:
                self._opened.popitem(last=False)
        mine.set_result(opened)
        return opened

    def forget(self, sop_instance_uid: str) -> None:
        """Open an instance anew when it is asked for next."""
        with self._lock:
            self._opened.pop(sop_instance_uid, None)


def _read_view(file: object) -> InstanceView:
    try:
        return InstanceView(file)  # type: ignore[arg-type]
    except StoreError:
        raise
    except Exception as error:  # noqa: BLE001 - pydicom lets through what its conversions raise; values are not shown
        raise StoreError(f"a file cannot be read as DICOM: {type(error).__name__}") from None
