"""The SHA-256 of a slide, begun before anything is known of it: hashing needs none of the libraries that take a while.

Loads nothing but the standard library, so that a program can begin with it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Self

__all__ = ["DigestAhead", "FileIdentity", "digest_files", "file_identity"]

FileIdentity = tuple[int, int, int]
"""Size, inode and time of modification (ns): what changes when a file is written to or replaced."""

_CHUNK_BYTES = 8 << 20
"""Hashed in 5 ms. Between two chunks the thread needs Python, which others hold while they load libraries."""


class DigestAhead:
    """Hash one file in a thread of its own, from now on.

    Whether the file can be read, or is a slide at all, is for others to find out: `result` is None then. Used as a
    context manager: at the end hashing that nobody waited for is given up.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._given_up = False
        self._result: tuple[FileIdentity, bytes] | None = None
        self._thread = Thread(target=self._run, name="coverslip-digest", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._given_up = True
        self._thread.join()

    def result(self, path: Path, expected: FileIdentity) -> bytes | None:
        """Wait for the SHA-256 of the file at `path`; None if it is another file, or could not be read."""
        if path != self.path:
            return None
        self._thread.join()
        if self._result is None or self._result[0] != expected:
            return None
        return self._result[1]

    def _run(self) -> None:
        try:
            # Opening a pipe would wait for its other end.
            if not stat.S_ISREG(self.path.stat().st_mode):
                return
            with self.path.open("rb", buffering=0) as file:
                identity = file_identity(os.fstat(file.fileno()))
                digest = hashlib.sha256()
                buffer = bytearray(_CHUNK_BYTES)
                view = memoryview(buffer)
                while not self._given_up and (count := file.readinto(buffer)):
                    digest.update(view[:count])
        except OSError:
            return
        if not self._given_up:
            self._result = identity, digest.digest()


def file_identity(status: os.stat_result) -> FileIdentity:
    """Return what tells a file from itself before it was changed."""
    return status.st_size, status.st_ino, status.st_mtime_ns


def digest_files(paths: Sequence[Path], ahead: DigestAhead | None = None) -> str:
    """Return the SHA-256 of a slide, hexadecimal: of its one file, or of its files' SHA-256 in their fixed order.

    Parameters
    ----------
    paths : sequence of Path
    ahead : DigestAhead, optional
        Of one of the files; used if that file is still the same.

    Raises
    ------
    OSError
        If a file cannot be read.
    """
    digests = [(ahead and ahead.result(path, file_identity(path.stat()))) or _digest_file(path) for path in paths]
    if len(digests) == 1:
        return digests[0].hex()
    return hashlib.sha256(b"".join(digests)).hexdigest()


def _digest_file(path: Path) -> bytes:
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").digest()
