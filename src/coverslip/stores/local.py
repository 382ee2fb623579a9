"""A folder as an object store."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from coverslip.errors import ConflictError, StoreError, UsageError
from coverslip.stores.base import LocalInstance, OnBytes, PutOutcome, PutResult, StoredInstance, VersionedBytes
from coverslip.stores.objects import NamedBytes, require_object_name
from coverslip.stores.options import Naming, StoreOptions
from coverslip.stores.whole_file import is_temporary, iter_chunks, whole_file

__all__ = ["LocalStore", "open_store_at"]


def open_store_at(url: str, options: StoreOptions) -> LocalStore:
    """Open the folder at a ``file:`` URL or path; it is made when something is put."""
    if url.lower().startswith("file://"):
        parts = urlsplit(url)
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise UsageError(f"{url}: wanted file:/// and the path of a folder")
        folder = Path(unquote(parts.path))
    else:
        folder = Path(url)
    if not url or (folder.exists() and not folder.is_dir()):
        raise UsageError(f"{url or 'empty path'}: not a folder")
    return LocalStore(folder, options.naming, options.chunk_bytes)


class LocalStore(NamedBytes):
    """Keeps instances as files below a folder.

    Parameters
    ----------
    folder : Path
    naming : Naming
    chunk_bytes : int
        How much is copied at once.
    """

    def __init__(self, folder: Path, naming: Naming = Naming.UUIDS, chunk_bytes: int = 8 << 20) -> None:
        self._folder = folder.absolute()
        self._chunk_bytes = chunk_bytes
        super().__init__(self._folder.as_uri(), naming)

    def put(self, instance: LocalInstance, on_bytes: OnBytes | None = None) -> PutResult:
        """Copy an instance; its digest is checked on the way."""
        path = self._path(instance.object_name)
        try:
            with whole_file(path) as file:
                self._copy(instance, file, on_bytes)
            outcome = PutOutcome.STORED
        except FileExistsError:
            outcome = PutOutcome.ALREADY_THERE
        stored = self.find_object(instance.object_name)
        if stored is None:
            raise StoreError(f"{instance.object_name}: vanished from {self.url}", retryable=True)
        if outcome is PutOutcome.ALREADY_THERE:
            comparison = self.compare_stored(instance, stored)
            if not comparison.equal:
                raise ConflictError(
                    f"{instance.object_name}: other content in {self.url}: {'; '.join(comparison.differences)}"
                )
        return PutResult(outcome, stored)

    def find_object(self, name: str) -> StoredInstance | None:
        """Return what is stored under a name, or None."""
        path = self._path(name)
        with _told_failures(name):
            try:
                state = path.stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
        if stat.S_ISDIR(state.st_mode):
            return None
        return StoredInstance(
            self.location_of(name), size_bytes=state.st_size, generation=f"{state.st_ino}-{state.st_mtime_ns}"
        )

    def iter_objects(self, prefix: str = "") -> Iterator[StoredInstance]:
        """Yield every file whose name begins with `prefix`, but those under way."""
        start = self._folder / prefix.rpartition("/")[0]
        for folder, folders, files in os.walk(start, onerror=self._tell_unreadable):
            folders.sort()
            for file in sorted(files):
                path = Path(folder, file)
                name = path.relative_to(self._folder).as_posix()
                if name.startswith(prefix) and not is_temporary(path) and (stored := self.find_object(name)):
                    yield stored

    def read_range(self, stored: StoredInstance, offset_bytes: int, length_bytes: int) -> bytes:
        """Return bytes of a file."""
        name = self.name_of(stored)
        with _told_failures(name), open(self._path(name), "rb", buffering=0) as file:
            file.seek(offset_bytes)
            return file.read(length_bytes)

    def put_bytes(self, name: str, data: bytes) -> None:
        """Put a small file in place of what has that name."""
        with whole_file(self._path(name), replacing=True) as file:
            file.write(data)

    def read_versioned(self, name: str) -> VersionedBytes | None:
        """Return a small file, or None; its version is its digest."""
        with _told_failures(name):
            try:
                data = self._path(name).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None
        return VersionedBytes(data, _version_of(data))

    def swap_bytes(self, name: str, data: bytes, version: str | None) -> str:
        """Put a small file in place of one version; others on this machine wait meanwhile."""
        path = self._path(name)
        with _told_failures(name):
            path.parent.mkdir(parents=True, exist_ok=True)
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            there = self.read_versioned(name)
            if (there.version if there else None) != version:
                raise ConflictError(f"{name}: was put by somebody else at the same time")
            self.put_bytes(name, data)
        finally:
            os.close(folder)
        return _version_of(data)

    def remove(self, stored: StoredInstance) -> bool:
        """Remove a file, and its folders as far as they are empty then."""
        name = self.name_of(stored)
        path = self._path(name)
        with _told_failures(name):
            try:
                path.unlink()
            except FileNotFoundError:
                return False
            for folder in path.parents:
                if folder == self._folder:
                    break
                with contextlib.suppress(OSError):
                    folder.rmdir()
        return True

    def close(self) -> None:
        """Do nothing: no file stays open."""

    def _tell_unreadable(self, error: OSError) -> None:
        """Raise what would otherwise make a listing too short."""
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise StoreError(f"{self.url}: cannot be listed: {error.strerror}") from None

    def _path(self, name: str) -> Path:
        return self._folder / require_object_name(name)

    def _copy(self, instance: LocalInstance, file: BinaryIO, on_bytes: OnBytes | None) -> None:
        digest = hashlib.md5(usedforsecurity=False)
        for chunk in iter_chunks(instance.path, self._chunk_bytes):
            digest.update(chunk)
            file.write(chunk)
            if on_bytes:
                on_bytes(len(chunk))
        if digest.hexdigest() != instance.md5:
            raise StoreError(
                f"{instance.path.name}: md5 {digest.hexdigest()} was read, expected {instance.md5}; has it changed?"
            )


def _version_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextlib.contextmanager
def _told_failures(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"{name}: {error.strerror or 'cannot be read or written'}") from None
