"""Files read in pieces, and files that appear under their names only when they are complete."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from io import BufferedWriter
from pathlib import Path

from coverslip.errors import StoreError

__all__ = ["is_temporary", "iter_chunks", "whole_file"]

_SUFFIX = ".partial"


def is_temporary(path: Path) -> bool:
    """Whether a name is that of a file under way."""
    return path.name.startswith(".") and path.name.endswith(_SUFFIX)


@contextlib.contextmanager
def whole_file(path: Path, *, replacing: bool = False) -> Iterator[BufferedWriter]:
    """Give a new file that gets its name when the block ends well; otherwise it is removed.

    What an earlier writer of the same file left, because it was killed, is removed too: its lock is gone with it.

    Parameters
    ----------
    path : Path
        Its folder is made if need be.
    replacing : bool
        Whether a file of that name may be there.

    Raises
    ------
    FileExistsError
        If there is a file of that name.
    StoreError
        If the file cannot be written.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        with _new_locked_file(path) as file:
            temporary = Path(file.name)
            yield file
            file.flush()
            os.fsync(file.fileno())
            _publish(temporary, path, replacing)
        _sync_folder(path.parent)
    except FileExistsError:
        raise
    except OSError as error:
        raise StoreError(f"{path.name}: cannot be written: {error.strerror or 'unknown reason'}") from None
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def _new_locked_file(path: Path) -> BufferedWriter:
    while True:
        file = open(path.with_name(f".{path.name[:180]}.{secrets.token_hex(6)}{_SUFFIX}"), "xb")  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink:
                return file
        except OSError:
            file.close()
            raise
        file.close()  # another writer took it for abandoned before it was locked


def _publish(temporary: Path, path: Path, replacing: bool) -> None:
    if replacing:
        temporary.rename(path)
        return
    try:
        os.link(temporary, path)  # unlike a rename it never takes the place of another file
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        temporary.rename(path)


def _remove_abandoned(path: Path) -> None:
    prefix = f".{path.name[:180]}."
    for other in path.parent.iterdir():
        if other.name.startswith(prefix) and is_temporary(other):
            with contextlib.suppress(OSError), open(other, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                other.unlink()


def _sync_folder(folder: Path) -> None:
    """Have the new name on disk; not every file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def iter_chunks(path: Path, chunk_bytes: int) -> Iterator[bytes]:
    """Yield the bytes of a local file.

    Raises
    ------
    StoreError
        If it cannot be read.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            while chunk := file.read(chunk_bytes):
                yield chunk
    except OSError as error:
        raise StoreError(f"{path.name}: cannot be read: {error.strerror}") from None
