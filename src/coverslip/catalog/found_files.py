"""Find the files below a path, in an order that is the same everywhere, and read bytes of one."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from coverslip.catalog.conversion_record import RECORD_FILE
from coverslip.errors import SourceError, StoreError

__all__ = ["FileSource", "FoundFile", "find_files"]

_HASH_BLOCK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class FoundFile:
    """One file that may be an instance.

    Parameters
    ----------
    path : str
    """

    path: str


def find_files(path: Path) -> Iterator[FoundFile]:
    """Yield a file, or every file of a folder at any depth, in alphabetical order.

    Left out are what names begin with a dot, in which runs that have not ended keep what they write, and the records
    that stand beside instances.

    Raises
    ------
    StoreError
        If a folder cannot be read.
    """
    if path.is_file():
        yield FoundFile(os.path.realpath(path))
        return
    if not path.is_dir():
        raise StoreError(f"{path}: no such file or folder")
    yield from _walk(os.path.realpath(path))


def _walk(folder: str) -> Iterator[FoundFile]:
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be read: {error.strerror}") from None
    for entry in found:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path)
        elif entry.name != RECORD_FILE:
            yield FoundFile(entry.path)


class FileSource:
    """The bytes of a local file."""

    __slots__ = ("_descriptor", "modified_ns", "size_bytes")

    def __init__(self, path: str) -> None:
        try:
            # A named pipe must not be waited for.
            self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise SourceError(f"cannot be read: {error.strerror}") from None
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(self._descriptor)
            raise SourceError("cannot be read: not a file")
        self.size_bytes = status.st_size
        self.modified_ns = status.st_mtime_ns

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Return bytes, fewer at the end of the file."""
        try:
            return os.pread(self._descriptor, length_bytes, offset_bytes)
        except OSError as error:
            raise SourceError(f"cannot be read: {error.strerror}") from None

    def md5(self) -> str:
        """Return the MD5 of the whole file, read block by block."""
        digest = hashlib.md5(usedforsecurity=False)
        offset = 0
        while block := self.read(offset, _HASH_BLOCK):
            digest.update(block)
            offset += len(block)
        return digest.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
