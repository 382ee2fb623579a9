"""The seam through which instances are read: bytes by offset, from a local file or from a store."""

from __future__ import annotations

import io
import os
from pathlib import Path
from threading import Lock
from typing import BinaryIO, Protocol, cast
from weakref import finalize

from coverslip.errors import StoreError

__all__ = ["LocalFile", "StoredFile", "open_stream"]


class StoredFile(Protocol):
    """One Part 10 file, wherever it lies. Reading is safe in any thread."""

    @property
    def name(self) -> str:
        """Its last name, by which findings tell it."""
        ...

    @property
    def folder(self) -> str:
        """Where it lies: a folder or the URL of one."""
        ...

    @property
    def local_path(self) -> Path | None:
        """Where programs of others can open it; None if they cannot."""
        ...

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the file, fewer at its end.

        Raises
        ------
        StoreError
            If they cannot be read.
        """
        ...

    def close(self) -> None:
        """Release what reading holds; reading again takes it anew."""
        ...


class LocalFile:
    """A file on disk; opened when it is read first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = Lock()
        self._descriptor: int | None = None
        self._size = 0
        self._close: finalize[[int], LocalFile] | None = None

    @property
    def name(self) -> str:
        """File name."""
        return self.path.name

    @property
    def folder(self) -> str:
        """Its folder's path."""
        return str(self.path.parent)

    @property
    def local_path(self) -> Path:
        """The path itself."""
        return self.path

    @property
    def size(self) -> int:
        """Bytes, when it was opened."""
        self._open()
        return self._size

    def _open(self) -> int:
        with self._lock:
            if self._descriptor is None:
                try:
                    descriptor = os.open(self.path, os.O_RDONLY)
                except OSError as error:
                    raise self._error(error) from error
                self._size = os.fstat(descriptor).st_size
                self._close = finalize(self, os.close, descriptor)
                self._descriptor = descriptor
            return self._descriptor

    def _error(self, error: OSError) -> StoreError:
        return StoreError(f"{self.name} cannot be read: {error.strerror}")

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the file, fewer at its end; StoreError if they cannot be read."""
        descriptor = self._descriptor
        try:
            return os.pread(self._open() if descriptor is None else descriptor, length, offset)
        except OSError as error:
            raise self._error(error) from error

    def close(self) -> None:
        """Close the file; reading opens it again."""
        with self._lock:
            self._descriptor = None
            if self._close is not None:
                self._close()


def open_stream(file: StoredFile) -> BinaryIO:
    """Return a stored file as a buffered stream, for libraries that want one."""
    return cast("BinaryIO", io.BufferedReader(_Stream(file), 1 << 16))


class _Stream(io.RawIOBase):
    """A stored file with a position."""

    def __init__(self, file: StoredFile) -> None:
        self._file = file
        self._position = 0
        self.name = file.name  # pydicom asks for it

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._file.size}[whence]
        self._position = start + offset
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._file.read(self._position, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
