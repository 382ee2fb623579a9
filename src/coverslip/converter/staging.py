"""Files appear under their final names only when the whole series is complete."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coverslip.errors import SourceError, StoreError

__all__ = [
    "QUARANTINE_FOLDER",
    "STAGING_FOLDER",
    "io_errors",
    "publish_folder",
    "remove_abandoned_work",
    "remove_if_empty",
    "staged_folder",
]

STAGING_FOLDER = ".coverslip-partial"
"""Lies inside the output folder, so that publishing is a rename within one file system."""

QUARANTINE_FOLDER = ".coverslip-quarantine"
"""Lies inside the output folder too, and holds the series that failed their validation."""

_LOCK = "lock"
_SERIES = "series"
_ATTEMPTS = 20
_HERE = -100
_RENAME_EXCHANGE = 2  # with _HERE (AT_FDCWD), from linux/fs.h and fcntl.h


@contextmanager
def staged_folder(output: Path) -> Iterator[Path]:
    """Give an empty folder to write a series into; what is left of it afterwards is removed, and so is `output`.

    The folder is locked as long as its writer lives, so that another run can tell abandoned work from work under way.
    `output` and its parents go only if they were made here and have stayed empty.

    Raises
    ------
    StoreError
        If the output folder cannot be written.
    """
    staging = output / STAGING_FOLDER
    made: list[Path] = []
    work = lock = None
    try:
        try:
            made = [folder for folder in (output, *output.parents) if not folder.exists()]
            work, lock = _claim_work(staging)
        except OSError as error:
            raise StoreError(f"output folder cannot be written: {error.strerror}") from error
        yield work / _SERIES
    finally:
        if work is not None and lock is not None:
            _remove_work(work)
            os.close(lock)
        for folder in (staging, *made):
            remove_if_empty(folder)


def _claim_work(staging: Path) -> tuple[Path, int]:
    """Make a folder in the staging area and lock it; returns it and the descriptor of the lock.

    Another run may clean up, as abandoned, what has been made and not locked yet; then it is made again.
    """
    for attempts_left in reversed(range(_ATTEMPTS)):
        lock = None
        try:
            staging.mkdir(parents=True, exist_ok=True)
            work = Path(tempfile.mkdtemp(dir=staging))
            lock = os.open(work / _LOCK, os.O_CREAT | os.O_RDWR)
            fcntl.flock(lock, fcntl.LOCK_EX)
            (work / _SERIES).mkdir()
            return work, lock
        except OSError as error:
            if lock is not None:
                os.close(lock)
            # Path.mkdir takes a folder that vanishes while it looks for a file of that name.
            if not attempts_left or not isinstance(error, (FileNotFoundError, FileExistsError)):
                raise
    raise AssertionError("the last attempt returns or raises")


def publish_folder(staged: Path, final: Path, *, overwrite: bool) -> bool:
    """Give a complete folder its final name in one step.

    With `overwrite` the folder that is there takes the place of `staged`, to be removed with it.

    Returns
    -------
    bool
        False if there is a folder of that name and `overwrite` is not set: nothing was changed.

    Raises
    ------
    StoreError
        If the final folder cannot be written.
    """
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            staged.rename(final)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            if not overwrite:
                return False
            _exchange(staged, final)
    except OSError as error:
        raise StoreError(f"series cannot be put in its final folder: {error.strerror}") from error
    finally:
        # Also after an interrupt between the two steps; a folder that holds a series stays.
        remove_if_empty(final.parent)
    return True


def _exchange(one: Path, other: Path) -> None:
    """Let two folders swap names: in one step where the system can (Linux), so that a kill leaves both whole."""
    import ctypes

    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    names = [(_HERE, os.fsencode(path)) for path in (one, other)]
    if renameat2 is not None and renameat2(*names[0], *names[1], _RENAME_EXCHANGE) == 0:
        return
    aside = one.with_name("replaced")
    other.rename(aside)
    try:
        one.rename(other)
    except BaseException:
        aside.rename(other)
        raise


def remove_abandoned_work(output: Path) -> int:
    """Remove what runs that were killed have left in the staging area, and return how many there were."""
    removed = 0
    staging = output / STAGING_FOLDER
    try:
        found = list(staging.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        found = []
    for work in found:
        try:
            lock = os.open(work / _LOCK, os.O_RDWR)
        except OSError:
            # Just being made by another run, or killed before it could lock: removed only if it is empty.
            remove_if_empty(work)
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        else:
            _remove_work(work)
            removed += 1
        finally:
            os.close(lock)
    remove_if_empty(staging)
    return removed


def _remove_work(work: Path) -> None:
    """Remove a folder of the staging area, its lock last: a removal that is killed is taken up by the next run."""
    for name in (_SERIES, "replaced", "."):
        shutil.rmtree(work / name, ignore_errors=True)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder unless something is in it."""
    try:
        folder.rmdir()
    except OSError:
        return


@contextmanager
def io_errors(kind: type[SourceError | StoreError], what: str) -> Iterator[None]:
    """Turn what the system refuses into an error of ours."""
    try:
        yield
    except OSError as error:
        raise kind(f"{what}: {error.strerror or type(error).__name__}") from error
